// The charts, by plotly.js where the package is installed. Each is drawn when it is in sight and something in it is new,
// no more often than it needs, and than the browser has time for: one may run on the machine that trades.

const SHOWN_MS = 120_000; // of the series
const GAP_MS = 5000; // between two points that are not joined
const REST = 25; // times as long as a chart took to draw it rests: none takes more than a 25th of a core

export class Charts {
  #document; #ready = false; #library = null; #colours = {}; #due = new Map(); #seen = new Set(); #asked = false;

  constructor(document) {
    this.#document = document;
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) this.#seen.add(entry.target.id); else this.#seen.delete(entry.target.id);
      }
    }, { rootMargin: "120px" });
    for (const node of document.querySelectorAll(".chart")) watch.observe(node);
    new ResizeObserver(() => this.#resize()).observe(document.querySelector("main"));
  }

  /** Load the library, once; without it say how to have charts. `sheets`: the ids of style sheets that it would bring
      for charts which nobody here draws, and which the page's policy keeps out: it takes them for being there. */
  begin(there, sheets) {
    if (this.#asked) return;
    if (!there) {
      for (const node of this.#document.querySelectorAll(".chart")) {
        node.classList.add("none");
        node.setAttribute("role", "note");
        node.textContent = "No charts: the package plotly is not installed (pip install 'predictive-alpha[watch]').";
      }
      return;
    }
    this.#asked = true;
    for (const node of this.#document.querySelectorAll(".chart.none")) {
      node.classList.remove("none");
      node.setAttribute("role", "img");
      node.textContent = "";
    }
    for (const id of sheets) {
      const there = this.#document.createElement("meta");
      there.id = id;
      this.#document.head.append(there);
    }
    const script = this.#document.createElement("script");
    script.src = "/plotly.min.js";
    script.onload = () => { this.#library = globalThis.Plotly; this.#ready = true; };
    script.onerror = () => { this.#asked = false; };
    this.#document.head.append(script);
  }

  colours() {
    const style = getComputedStyle(this.#document.documentElement);
    for (const name of ["text", "soft", "line", "blue", "blue-fill", "orange", "orange-fill", "card", "good", "idle-ground"]) {
      this.#colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.#due.clear();
  }

  show(now, chosen, series, { profit, orders, fills }) {
    if (!this.#ready) return;
    const at = now.at_ns / 1e6;
    this.#draw("chart-depth", 400, () => chosen?.bids ? this.#depth(chosen) : null);
    this.#draw("chart-price", 500, () => series ? this.#price(chosen, series, [...orders.values()], [...fills.values()], at) : null);
    this.#draw("chart-probability", 500, () => series ? this.#probability(now, series, at) : null);
    this.#draw("chart-profit", 1000, () => this.#profit(profit, at));
    this.#draw("chart-calibration", 2000, () => this.#calibration(now));
  }

  #draw(id, every, figure) {
    const node = this.#document.getElementById(id), when = performance.now();
    if (!this.#seen.has(id) || when < (this.#due.get(id) ?? -Infinity)) return;
    const found = figure();
    if (!found) return;
    this.#library.react(node, found.data, this.#layout(found.layout), { displayModeBar: false, staticPlot: false, responsive: false, scrollZoom: false, doubleClick: false });
    this.#due.set(id, when + Math.max(every, REST * (performance.now() - when)));
  }

  #resize() {
    if (!this.#ready) return;
    for (const node of this.#document.querySelectorAll(".chart")) if (node.data) this.#library.Plots.resize(node);
  }

  #layout(more) {
    const c = this.#colours;
    const axis = { gridcolor: c.line, zeroline: false, linecolor: c.line, tickcolor: c.line, tickfont: { color: c.soft, size: 11 }, fixedrange: true, automargin: false };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false, hovermode: "closest",
      font: { family: "system-ui, sans-serif", size: 11, color: c.text }, hoverlabel: { bgcolor: c.card, bordercolor: c.soft, font: { color: c.text, size: 12 } },
      ...more,
      margin: { l: 58, r: 14, t: 8, b: 28, ...more.margin },
      xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis }, ...(more.yaxis2 ? { yaxis2: { ...axis, ...more.yaxis2 } } : {}),
    };
  }

  #time(at) {
    return { type: "date", range: [at - SHOWN_MS - zone(at), at + 1500 - zone(at)], nticks: 6, tickformat: "%H:%M:%S", showgrid: false };
  }

  #depth(one) {
    const c = this.#colours;
    const sum = (levels) => { let total = 0; return levels.map(([px, qty]) => [px, total += qty]); };
    const bids = sum(one.bids), asks = sum(one.asks);
    const side = (levels, name, line, fill) => ({
      x: levels.map(([px]) => px), y: levels.map(([, qty]) => qty), name, mode: "lines", type: "scatter", fill: "tozeroy", fillcolor: fill,
      line: { color: line, width: 2, shape: "vh" }, hovertemplate: `%{y} ${name} at %{x} or better<extra></extra>`,
    });
    const shapes = one.mid === null ? [] : [{ type: "line", x0: one.mid, x1: one.mid, yref: "paper", y0: 0, y1: 1, line: { color: c.soft, width: 1, dash: "dot" } }];
    const width = Math.max(...[bids, asks].map((levels) => levels.length ? Math.abs(levels.at(-1)[0] - (one.mid ?? levels[0][0])) : 0)) || 1;
    const notes = [["bids", 0.02, "left", c.blue], ["asks", 0.98, "right", c.orange]].map(([text, x, xanchor, color]) => (
      { text, x, xanchor, xref: "paper", y: 1, yanchor: "top", yref: "paper", showarrow: false, font: { color, size: 12 } }));
    return {
      data: [side(bids, "bid", c.blue, c["blue-fill"]), side(asks, "asked", c.orange, c["orange-fill"])],
      layout: { shapes, annotations: notes, xaxis: { nticks: 5, tickformat: ",.7~g", range: one.mid === null ? undefined : [one.mid - width * 1.02, one.mid + width * 1.02], showgrid: false },
        yaxis: { range: [0, 1.16 * Math.max(1e-8, ...[bids, asks].map((levels) => levels.at(-1)?.[1] ?? 0))], nticks: 5 } },
    };
  }

  #price(one, series, orders, fills, at) {
    const c = this.#colours, { x, y } = joined(series.t, series.mid, at);
    const mine = (rows) => rows.filter((row) => row.symbol === one.name && at - row.at_ns / 1e6 < SHOWN_MS);
    const open = mine(orders).filter((row) => !row.filled), marks = [];
    for (const [rows, side, symbol, color] of [
      [open, "BUY", "triangle-up-open", c.soft], [open, "SELL", "triangle-down-open", c.soft],
      [mine(fills), "BUY", "triangle-up", c.blue], [mine(fills), "SELL", "triangle-down", c.orange]]) {
      const some = rows.filter((row) => row.side === side);
      marks.push({
        x: some.map((row) => local(row.at_ns / 1e6)), y: some.map((row) => row.price), mode: "markers", type: "scatter",
        marker: { symbol, color, size: 11, line: { color: symbol.endsWith("open") ? color : c.card, width: 1.2 } },
        text: some.map((row) => `${side === "BUY" ? "bought" : "sold"} ${row.qty} at ${row.price}${row.state ? `, ${row.state}` : ""}`), hovertemplate: "%{text}<extra></extra>",
      });
    }
    return {
      data: [{ x, y, mode: "lines", type: "scatter", line: { color: c.text, width: 1.4, shape: "hv" }, connectgaps: false, hovertemplate: "%{y}<extra></extra>" }, ...marks],
      layout: { xaxis: this.#time(at), yaxis: { nticks: 6, tickformat: ",.7~g" }, margin: { l: 70 } },
    };
  }

  #probability(now, series, at) {
    const c = this.#colours, { x, y } = joined(series.t, series.p, at), { enter, hold } = now.threshold;
    const band = (half, fill, dash) => ({ type: "rect", xref: "paper", x0: 0, x1: 1, y0: 0.5 - half, y1: 0.5 + half, fillcolor: fill, line: { color: c.soft, width: 1, dash }, layer: "below" });
    return {
      data: [{ x, y, mode: "lines", type: "scatter", line: { color: c.blue, width: 1.8, shape: "hv" }, connectgaps: false, hovertemplate: "%{y:.3f}<extra></extra>" }],
      layout: { xaxis: this.#time(at), margin: { l: 70 }, shapes: [band(enter, c["idle-ground"], "dot"), ...(hold > 0 ? [band(hold, "rgba(0,0,0,0)", "dash")] : [])],
        yaxis: { range: [0, 1], tickvals: [0, 0.25, 0.5, 0.75, 1] } },
    };
  }

  #profit(profit, at) {
    const c = this.#colours, x = profit.map(([when]) => local(when));
    const known = profit.map(([, pnl]) => pnl).filter((pnl) => pnl !== null);
    const low = Math.min(...known), high = Math.max(...known), span = Math.max(high - low, 0.01);
    const label = (text, x, xanchor, color) => ({ text, x, xanchor, xref: "paper", y: 1, yanchor: "top", yref: "paper", showarrow: false, font: { color, size: 12 } });
    return {
      data: [
        { x, y: profit.map(([, , exposure]) => exposure), yaxis: "y2", mode: "lines", type: "scatter", line: { color: c.orange, width: 1.4, dash: "dot" }, hovertemplate: "exposure %{y:,.0f}<extra></extra>" },
        { x, y: profit.map(([, pnl]) => pnl), mode: "lines", type: "scatter", line: { color: c.blue, width: 2 }, hovertemplate: "profit %{y:,.2f}<extra></extra>" },
      ],
      layout: { xaxis: { ...this.#time(at), nticks: 4, range: [Math.min(x[0] ?? local(at), local(at - 20_000)), local(at + 1000)] }, margin: { l: 52, r: 52 }, annotations: [label("profit ―", 0.02, "left", c.blue), label("exposure ┄", 0.98, "right", c.orange)],
        yaxis: { range: [low - 0.06 * span, high + 0.24 * span], nticks: 5, tickformat: ",.6~g" },
        yaxis2: { overlaying: "y", side: "right", tickmode: "auto", range: [0, 1.3 * Math.max(1, ...profit.map(([, , exposure]) => exposure))], nticks: 4, tickformat: ".3~s", showgrid: false } },
    };
  }

  #calibration(now) {
    const c = this.#colours, models = now.judged.models.filter((one) => one.bins?.length);
    const most = Math.max(1, ...models.flatMap((one) => one.bins.map(([, , rows]) => rows)));
    return {
      data: [
        { x: [0, 1], y: [0, 1], mode: "lines", type: "scatter", line: { color: c.soft, width: 1, dash: "dot" }, hoverinfo: "skip" },
        ...models.map((one, place) => ({
          x: one.bins.map(([p]) => p), y: one.bins.map(([, up]) => up), mode: "lines+markers", type: "scatter", name: one.name,
          line: { color: place ? c.orange : c.blue, width: 1.5, dash: place ? "dash" : "solid" },
          marker: { color: place ? c.orange : c.blue, symbol: place ? "diamond" : "circle", size: one.bins.map(([, , rows]) => 5 + 9 * Math.sqrt(rows / most)) },
          text: one.bins.map(([p, up, rows]) => `${one.name}: said ${p.toFixed(2)}, came ${up.toFixed(2)}, of ${rows}`), hovertemplate: "%{text}<extra></extra>",
        })),
      ],
      layout: { xaxis: { range: [0, 1], dtick: 0.25, title: { text: "said", font: { size: 11, color: c.soft }, standoff: 4 } }, margin: { l: 44, b: 36, r: 8 },
        yaxis: { range: [0, 1], dtick: 0.25, title: { text: "came", font: { size: 11, color: c.soft }, standoff: 4 } } },
    };
  }
}

const zone = (at) => new Date(at).getTimezoneOffset() * 60_000;
/** Milliseconds such that plotly, which knows no time zones, shows the time of this browser. */
const local = (at) => at - zone(at);

/** The part that is shown, with a hole where nothing came for a while. */
function joined(t, values, at) {
  const x = [], y = [];
  for (let i = 0; i < t.length; i += 1) {
    if (at - t[i] > SHOWN_MS) continue;
    if (x.length && t[i] - t[i - 1] > GAP_MS) {
      x.push(local(t[i] - 1));
      y.push(null);
    }
    x.push(local(t[i]));
    y.push(values[i]);
  }
  return { x, y };
}
