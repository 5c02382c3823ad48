// The page: one WebSocket in, numbers and charts out. State is what the newest message says; only what changed is touched.

import { Charts } from "/charts.js";

const $ = (id) => document.getElementById(id);
const TOKEN = "alpha-token", THEME = "alpha-theme", SYMBOL = "alpha-symbol";
const LATE_MS = 2500; // without a message for so long, what is shown is old
const KEEP_MS = 300_000; // of every series
const ACTIONS = {
  halt: { title: "Halt trading?", yes: "Halt now",
    what: "No new orders leave, and working ones are cancelled, at once. It holds until somebody resumes, also after a restart." },
  reduce: { title: "Only reduce?", yes: "Only reduce",
    what: "Only orders that shrink a position leave; working orders that might make one larger are cancelled. It holds until somebody resumes." },
  flatten: { title: "Leave every position?", yes: "Flatten",
    what: "Every position is left, whether anything is predicted or not, at the touch, and nothing else leaves. It holds until somebody resumes." },
  resume: { title: "Resume trading?", yes: "Resume",
    what: "Lifts the halt, and what reduce and flatten have set. Positions are compared with the venue before anything trades." },
};

// ---- small helpers

const shown = new WeakMap();

/** Set a text only if it is another one. */
function put(node, text) {
  if (shown.get(node) !== text) {
    shown.set(node, text);
    node.textContent = text;
  }
}

function mark(node, name, value) {
  if (node.dataset[name] !== value) node.dataset[name] = value;
}

function make(tag, className, ...inside) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...inside);
  return node;
}

/** Rows of a table or list by key: made once, moved where they belong, filled when something in them is new. */
function rows(parent, items, key, build, fill, empty) {
  const known = parent.known ??= new Map();
  const wanted = new Set(items.map(key));
  for (const [name, row] of known) {
    if (!wanted.has(name)) {
      row.remove();
      known.delete(name);
    }
  }
  let place = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    let row = known.get(name);
    if (!row) {
      row = build(item);
      known.set(name, row);
    }
    if (row !== place) parent.insertBefore(row, place);
    else place = place.nextSibling;
    fill(row, item);
  }
  if (empty) {
    parent.nothing ??= parent.tagName === "TBODY"
      ? make("tr", "empty", Object.assign(make("td", "", empty), { colSpan: 12 })) : make("li", "", empty);
    if (items.length) parent.nothing.remove();
    else if (parent.firstChild !== parent.nothing) parent.append(parent.nothing);
  }
}

const cells = (...kinds) => () => make("tr", "", ...kinds.map((kind) => make("td", kind)));

const formats = new Map();
/** To make a format takes longer than to use it a hundred times. */
function formatted(value, least, most, sign = "auto") {
  const key = `${least} ${most} ${sign}`;
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat("en-US", {
      minimumFractionDigits: least, maximumFractionDigits: most, signDisplay: sign }));
  }
  return formats.get(key).format(value);
}
function number(value, digits = 0, sign = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return formatted(value, digits, digits, sign ? "exceptZero" : "auto");
}
/** With as many decimals as it needs, at least two; `about`: no more than a price of that size is told from another by. */
function price(value, about = false) {
  if (value === null || value === undefined) return "–";
  return formatted(value, 2, !about ? 8 : Math.abs(value) >= 100 ? 2 : Math.abs(value) >= 1 ? 4 : 8);
}
const quantity = (value) => formatted(value, 0, 8);
const short = (value) => Math.abs(value) >= 100 ? number(value) : Math.abs(value) >= 1 ? number(value, 1)
  : value === 0 ? "0" : number(value, 3);
const clock = (ns) => new Date(ns / 1e6).toTimeString().slice(0, 8);

/** A time of day, to the millisecond where there is room for it. */
function when(cell, ns) {
  if (!cell.firstChild) cell.append(make("span"), make("span", "wide"));
  put(cell.firstChild, clock(ns));
  put(cell.lastChild, `.${String(Math.floor(ns / 1e6) % 1000).padStart(3, "0")}`);
}

const micro = (us) => us >= 100 ? number(us) : number(us, 1);

function announce(text) {
  put($("announce"), text);
}

/** What came of an action, for a while. */
function tell(text) {
  clearTimeout(tell.over);
  $("done").hidden = false;
  put($("done-said"), text);
  announce(text);
  tell.over = setTimeout(() => { $("done").hidden = true; }, 20_000);
}

// ---- state

const state = {
  hello: null, last: null, heard: 0, chosen: recall(SYMBOL), series: new Map(), profit: [], orders: new Map(), fills: new Map(),
  link: "connecting", instance: null, waiting: new Map(), asked: 0, unlocked: false, troubles: [],
};
const charts = new Charts(document);
let socket = null, patience = 250, retry = 0, opened = false;

function recall(name) {
  try { return sessionStorage.getItem(name) ?? localStorage.getItem(name); } catch { return null; }
}
function remember(store, name, value) {
  try { value === null ? store().removeItem(name) : store().setItem(name, value); } catch { /* private mode: not kept */ }
}
const session = () => sessionStorage, lasting = () => localStorage;

// The token comes once, behind the # of the address, which no server sees; then it is in this tab alone.
function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!found) return;
  remember(session, TOKEN, found);
  history.replaceState(null, "", location.pathname);
}
takeToken();
addEventListener("hashchange", () => { takeToken(); if (socket === null) connect(); else check(token()); });
const token = () => { try { return sessionStorage.getItem(TOKEN) || ""; } catch { return ""; } };

// ---- the link

function connect() {
  clearTimeout(retry);
  retry = 0;
  const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/stream`;
  const words = token() && /^[A-Za-z0-9_-]+$/.test(token()) ? ["alpha", `token.${token()}`] : ["alpha"];
  const own = socket = new WebSocket(address, words);
  own.onmessage = (event) => { if (own === socket) hear(JSON.parse(event.data)); };
  own.onclose = () => { if (own === socket) lost(); };
}

function lost() {
  socket = null;
  for (const wake of state.waiting.values()) wake({ ok: false, text: "the connection was lost before an answer came; look at the state of trading" });
  state.waiting.clear();
  if (!opened) why();
  opened = false;
  link(state.heard ? "reconnecting" : "connecting");
  if (!document.hidden) {
    retry = setTimeout(connect, patience * (0.75 + Math.random() / 2));
    patience = Math.min(patience * 1.6, 4000);
  }
}

/** A WebSocket that was refused says no reason; a request does. */
async function why() {
  try {
    const answer = await fetch("/healthz", { headers: token() ? { Authorization: `Bearer ${token()}` } : {}, cache: "no-store" });
    if (answer.status !== 401 || $("token").open) return;
    const wrong = token() !== "";
    remember(session, TOKEN, null);
    askToken("This monitor can be reached from other machines, so it shows no figure without its token ($ALPHA_MONITOR_TOKEN).");
    if (wrong) put($("token-said"), "That is not the token of this run.");
  } catch { /* nobody is there: tried again soon */ }
}

function say(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function hear(message) {
  if (message.type === "hello") {
    opened = true;
    patience = 250;
    state.hello = message;
    if (state.instance !== message.instance) for (const kept of [state.series, state.orders, state.fills]) kept.clear();
    if (state.instance !== message.instance) state.profit = [];
    state.instance = message.instance;
    state.watching = null;
    dress();
    if (message.controls && token()) check(token());
    if (document.hidden) say({ type: "rest" });
  } else if (message.type === "snapshot") {
    state.heard = performance.now();
    state.last = message;
    collect(message);
    show(message);
  } else if (message.type === "history") {
    backfill(message.symbol, message.mid);
  } else if (message.type === "answer") {
    state.waiting.get(message.id)?.(message);
    state.waiting.delete(message.id);
  }
}

const LINKS = {
  connecting: ["wait", "Connecting"], reconnecting: ["bad", "Reconnecting"], late: ["bad", "Not answering"],
  stopped: ["bad", "Pipeline stopped"], live: ["good", "Live"],
};

/** What is wrong, a line each: the link first, and while it is good what the newest message tells. */
function link(name) {
  const [kind, text] = LINKS[name];
  mark(document.body, "link", name);
  mark($("link"), "kind", kind);
  put($("link-text"), text);
  const since = state.heard ? `What is shown is ${Math.max(1, Math.round((performance.now() - state.heard) / 1000))} s old. ` : "";
  const words = {
    connecting: "", live: "",
    reconnecting: `No connection to the monitor. ${since}Trying again.`,
    late: `The monitor does not answer. ${since}`,
    stopped: "The pipeline has stopped. What is shown is how it stood at the end.",
  }[name];
  const banner = $("banner"), lines = [...(words ? [[kind, words]] : []), ...(name === "live" ? state.troubles : [])];
  banner.hidden = !lines.length;
  rows(banner, lines, ([, line]) => line, ([, line]) => make("p", "", line), (line, [its]) => mark(line, "kind", its));
  if (name !== state.link) {
    state.link = name;
    if (name !== "connecting") announce(name === "live" ? "Live again" : text);
    document.title = `${name === "live" ? "" : `${text} – `}Predictive Alpha`;
  }
}

setInterval(() => { // what grows old must look it, also when nothing comes
  if (document.hidden) return;
  if (socket === null || state.link === "reconnecting") link(state.heard ? "reconnecting" : "connecting");
  else if (state.heard && performance.now() - state.heard > LATE_MS) link("late");
}, 1000);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    say({ type: "rest" });
    clearTimeout(retry);
    retry = 0;
  } else if (socket === null) {
    if (!retry) connect();
  } else {
    state.heard = performance.now() - LATE_MS / 2; // it had no reason to come
    state.watching = null;
    say({ type: "watch", symbol: state.chosen });
  }
});

// ---- series

function serie(symbol) {
  if (!state.series.has(symbol)) state.series.set(symbol, { t: [], mid: [], p: [], filled: false });
  return state.series.get(symbol);
}

function collect(now) {
  const at = now.at_ns / 1e6;
  for (const one of now.symbols) {
    const found = serie(one.name), usable = one.valid && !one.stale && one.mid !== null;
    const moves = one.p_up === null ? null : one.p_up + one.p_down;
    found.t.push(at);
    found.mid.push(usable ? one.mid : null);
    found.p.push(usable && moves > 0 && at - one.predicted_ns / 1e6 < 10_000 ? one.p_up / moves : null);
    trim(found, at);
  }
  for (const [kept, rows] of [[state.orders, now.orders], [state.fills, now.fills]]) {
    for (const row of rows) kept.set(row.id, row);
    for (const [id, row] of kept) { // the oldest come first
      if (at - row.at_ns / 1e6 <= KEEP_MS) break;
      kept.delete(id);
    }
  }
  if (at - state.profit.at(-1)?.[0] > 5000) state.profit.push([at - 1, null, null]); // nobody knows what was between
  const speaks = now.executor.speaks; // what it said last is not of now
  state.profit.push([at, speaks ? now.numbers.pnl : null, speaks ? now.numbers.exposure : null]);
  while (state.profit.length && at - state.profit[0][0] > KEEP_MS) state.profit.shift();
}

function trim(found, at) {
  let old = 0;
  while (old < found.t.length && at - found.t[old] > KEEP_MS) old += 1;
  if (old > 32) for (const name of ["t", "mid", "p"]) found[name].splice(0, old);
}

/** What the ring remembers of the time before this page was opened. */
function backfill(symbol, mid) {
  const found = serie(symbol), first = found.t[0] ?? Infinity;
  const older = mid.filter(([at]) => at / 1e6 < first - 50);
  if (found.filled || !older.length) return;
  found.filled = true;
  found.t.unshift(...older.map(([at]) => at / 1e6));
  found.mid.unshift(...older.map(([, value]) => value));
  found.p.unshift(...older.map(() => null));
}

// ---- showing

function show(now) {
  state.troubles = troubles(now);
  const ways = now.stages.filter((one) => one.name !== "monitor" && one.name !== "exchange");
  link(ways.some((one) => one.state === "ready" || one.state === "waiting") || !ways.length && now.stages.length ? "live" : "stopped");
  put($("where"), [now.instance, [now.venue, now.gateway].filter(Boolean).join(" → ")].filter(Boolean).join(" · "));
  trading(now.state);
  alerts(now.alerts);
  lastWord(now);
  tiles(now);
  markets(now);
  stations(now);
  limits(now);
  stages(now);
  fills(now);
  orders(now);
  refusals(now);
  models(now);
  const chosen = now.symbols.find((one) => one.name === state.chosen);
  charts.show(now, chosen, chosen && serie(chosen.name), state);
  notes(now, chosen);
}

const GOOD = ["ACTIVE"], DOUBTFUL = ["REDUCING", "FLATTENING", "RECONCILING", "STARTING", "DISARMED"];

function standing(one) {
  const good = GOOD.includes(one.state) && !one.why;
  const unheard = one.switch.halt && !one.halted;
  return { good, unheard, kind: unheard ? "bad" : good ? "good" : GOOD.includes(one.state) || DOUBTFUL.includes(one.state) ? "warn" : "bad" };
}

function trading(one) {
  const { unheard, kind } = standing(one), text = `${one.state}${unheard ? " (not confirmed by the executor)" : ""}`;
  mark($("trading"), "kind", kind);
  put($("trading-text"), text);
  if (state.said !== text) {
    if (state.said !== undefined) announce(`Trading: ${text}`);
    state.said = text;
  }
}

/** Sentences of what is wrong, each with its kind, the worst for trading first. */
function troubles(now) {
  const found = [], one = now.state, { good, unheard, kind } = standing(one), { speaks, heard_ns: heard } = now.executor;
  const by = (set) => ` (by ${set.who}, ${clock(set.when_ns)})`;
  if (unheard) found.push(["bad", `The halt is set${by(one.switch.halt)}: ${one.switch.halt.why}; no executor confirms it.`]);
  if (!speaks) {
    const gone = one.state === "SILENT" ? "The executor is silent: it hangs, or the machine does" : heard ? "The executor has gone" : "No executor runs";
    found.push(["bad", `${gone}${heard ? `; ${one.why}` : ""}. ${heard ? `Profit, exposure, limits, latency and refusals are its last word, of ${clock(heard)}; markets, orders and fills go on, from the books and the journal.` : ""}`]);
  } else if (!good && !unheard) {
    found.push([kind, one.why ? `${one.state}: ${one.why}` : one.state]);
  }
  const set = one.switch.reduction;
  if (set && !one.reducing && !one.halted && speaks) found.push(["warn", `${set.flatten ? "Flatten" : "Reduce"} is asked for${by(set)}: ${set.why}; the executor does not confirm it.`]);
  const workers = now.missing.filter((name) => name.startsWith("inference-"));
  const none = workers.length && !now.stages.some((stage) => stage.name.startsWith("inference-") && stage.state !== "gone");
  if (none) found.push(["bad", "No worker runs: nothing is predicted."]);
  const missing = now.missing.filter((name) => !(none && workers.includes(name)) && name !== "executor");
  if (missing.length) found.push(["bad", `Not running: ${missing.join(", ")}.`]);
  const waits = now.stages.some((stage) => stage.name === "executor" && stage.state === "waiting"); // it makes one
  if (now.journal.error && heard && !waits) found.push(["bad", `The journal cannot be read: ${now.journal.error}`]);
  return found;
}

function alerts({ wanted, firing, former }) {
  $("alerts").hidden = !firing.length && !former.length;
  rows($("firing"), firing, (one) => `${one.name} ${one.subject}`, (one) => make("li", "", make("span", "state"), " ", make("b", "", `${one.name} ${one.subject}`), " ", make("span"), " ", make("small"), make("small", "wide")), (row, one) => {
    const [pill, , what, since, remedy] = row.children;
    mark(pill, "kind", one.severity === "critical" ? "bad" : "warn");
    put(pill, one.severity);
    put(what, one.what);
    put(since, `since ${clock(one.since_ns)}`);
    put(remedy, one.remedy ? ` · ${one.remedy}` : "");
  });
  $("former").hidden = !former.length;
  put($("former"), former.length ? `Told before ${wanted ? "the last start" : "alerts were switched off"} and not known now: ${former.map((one) => `${one.name} ${one.subject}`.trim()).join(", ")}` : "");
  const worst = firing.filter((one) => one.severity === "critical").length;
  if (worst > (state.critical ?? worst)) announce(`Alert: ${firing[0].what}`);
  state.critical = worst;
}

/** Figures that only the executor tells must not look live where it tells nothing. */
function lastWord(now) {
  const { speaks, heard_ns: heard } = now.executor;
  mark(document.body, "executor", speaks || !heard ? "speaks" : "silent");
  for (const node of document.querySelectorAll(".last-word")) put(node, speaks || !heard ? "" : `${node.dataset.before ?? ""}executor's last word, ${clock(heard)}`);
}

function tiles(now) {
  const n = now.numbers, r = now.rates, whole = now.latency_us.tick_to_decision;
  const told = whole && whole.now.count ? whole.now : whole?.all;
  const rate = (name) => r[name] === undefined ? "–" : number(r[name]);
  const lastly = now.executor.speaks ? "" : `last word ${now.executor.heard_ns ? clock(now.executor.heard_ns) : "never"}`;
  const fees = n.fees ? `, fees ${number(-n.fees, 2, true)}` : "";
  const items = [
    ["Ticks", `${rate("ticks")}/s`, `${number(n.ticks)} in all`],
    ["Predictions", `${rate("predictions")}/s`, `${number(n.skipped)} rows skipped`],
    ["Tick to decision", told?.count ? `${micro(told.p50)} µs` : "–", told?.count ? `median; p99 ${micro(told.p99)} µs` : "no decision yet", true],
    ["Decisions", `${rate("decisions")}/s`, `${number(n.decisions)} in all`, true],
    ["Orders", number(n.orders), n.unresolved ? `${number(n.unresolved)} unresolved` : `${number(n.working)} working`, true],
    ["Fills", number(n.fills), `fees ${number(n.fees, 2)}`, true],
    ["Profit", number(n.pnl, 2, true), `closed ${number(n.realised, 2, true)}, open ${number(n.unrealised, 2, true)}${fees}`, true],
    ["Exposure", number(n.exposure), `net ${number(n.position, 0, true)}`, true],
  ];
  rows($("tiles"), items, (item) => item[0], ([name]) => make("div", "", make("dt", "", name), make("dd", "figure"), make("dd", "more")),
    (box, [, figure, more, told]) => {
      box.classList.toggle("of-executor", Boolean(told));
      put(box.children[1], figure);
      put(box.children[2], told && lastly ? `${more} · ${lastly}` : more);
    });
}

function choose(symbol) {
  state.chosen = symbol;
  remember(lasting, SYMBOL, symbol);
  if (state.last) show(state.last);
}

function markets(now) {
  if (!now.symbols.some((one) => one.name === state.chosen) && now.symbols.length) state.chosen = now.symbols[0].name;
  if (state.watching !== state.chosen && state.chosen && !document.hidden) {
    state.watching = state.chosen;
    say({ type: "watch", symbol: state.chosen });
  }
  rows($("symbols"), now.symbols, (one) => one.name, (one) => {
    const row = cells("", "n", "n", "n wide", "n", "n", "n wide", "n wide", "")();
    const button = make("button", "choose", one.name);
    button.type = "button";
    button.addEventListener("click", () => choose(one.name));
    row.children[0].append(button);
    row.children[8].append(make("span", "state"));
    return row;
  }, (row, one) => {
    const to = row.children, moves = one.p_up === null ? null : one.p_up + one.p_down;
    const pressed = String(one.name === state.chosen);
    if (to[0].firstChild.getAttribute("aria-pressed") !== pressed) to[0].firstChild.setAttribute("aria-pressed", pressed);
    put(to[1], price(one.bid));
    put(to[2], price(one.ask));
    put(to[3], one.spread_bps === null ? "–" : `${number(one.spread_bps, 2)} bps`);
    put(to[4], moves > 0 ? number(one.p_up / moves, 3) : "–");
    put(to[5], one.qty === null ? "–" : quantity(one.qty));
    put(to[6], price(one.average_cost, true));
    put(to[7], one.unrealised === null ? "–" : number(one.unrealised, 2, true));
    const [kind, word] = one.mid === null && !one.valid ? ["bad", "no book"] : !one.valid ? ["bad", "invalid"] : one.stale ? ["warn", `old, ${number(one.age_ms / 1000, 1)} s`] : ["good", "valid"];
    mark(to[8].firstChild, "kind", kind);
    put(to[8].firstChild, word);
  }, "No books yet");
  for (const node of document.querySelectorAll("h2 .symbol")) put(node, state.chosen ?? "");
}

const STATIONS = {
  ingest: "book updated", feature: "row written", dispatch: "handed out", queue: "worker has it", inference: "predicted", decide: "decided",
  send: "sent", ack: "acknowledged", tick_to_decision: "Tick to decision", tick_to_order: "Tick to order",
};

function stations(now) {
  // Each station begins where, in the middle of all, the one before ended.
  const found = Object.entries(now.latency_us).map(([name, { now: lately, all }]) => ({ name, ...(lately.count ? lately : all), lately: lately.count > 0 }));
  const steps = found.filter((one) => !one.name.startsWith("tick_to")), totals = found.filter((one) => one.name.startsWith("tick_to"));
  let at = 0;
  for (const one of steps) {
    one.from = at;
    at += one.p50;
  }
  const most = Math.max(1, ...steps.map((one) => one.from + one.p50 * 1.15), ...totals.map((one) => one.p50 * 1.3));
  rows($("stations"), [...steps, ...totals], (one) => one.name, (one) => {
    const row = cells("", "", "n", "n", "n wide")();
    if (one.name.startsWith("tick_to")) row.classList.add("total");
    row.children[0].append(STATIONS[one.name] ?? one.name);
    const bar = make("div", "bar", make("i", "far"), make("i", "near"));
    bar.setAttribute("aria-hidden", "true");
    row.children[1].append(bar);
    return row;
  }, (row, one) => {
    const to = row.children, [far, near] = to[1].firstChild.children, from = (one.from ?? 0) / most;
    place(near, from, one.p50 / most);
    place(far, from, one.p99 / most);
    put(to[2], one.count ? micro(one.p50) : "–");
    put(to[3], one.count ? micro(one.p99) : "–");
    put(to[4], one.count ? micro(one.p999) : "–");
  }, "No decision yet");
  const count = now.latency_us.tick_to_decision?.now.count ?? 0;
  put($("latency-note"), found.length ? (count ? `The last ${number(now.latency_s, 0)} s, ${number(count)} decisions; of orders, where there were none lately, since the start.`
    : "No decision lately: since the start.") + " Bars begin where the median of the station before ends." : "");
}

function place(bar, from, width) {
  const left = `${(100 * Math.min(1, from)).toFixed(1)}%`, wide = `${(100 * Math.max(0.004, Math.min(1 - Math.min(1, from), width))).toFixed(1)}%`;
  if (bar.style.left !== left) bar.style.left = left;
  if (bar.style.width !== wide) bar.style.width = wide;
}

const EXECUTORS = new Set(["max_gross_notional", "max_daily_loss", "max_drawdown", "max_open_orders", "max_orders_per_s"]);

function limits(now) {
  rows($("limits"), now.limits.slice(0, 10), (one) => `${one.name} ${one.symbol}`, (one) => {
    const row = cells("break", "", "n", "n", "n")();
    row.children[0].append(one.name.replaceAll("_", " ").replace(/^max /, ""), ...(one.symbol ? [make("small", "", ` ${one.symbol}`)] : []));
    const bar = make("div", "bar", make("i", "near"));
    bar.setAttribute("aria-hidden", "true");
    row.children[1].append(bar);
    row.children[4].append(make("span"));
    return row;
  }, (row, one) => {
    row.classList.toggle("stale", now.executor.heard_ns !== null && !now.executor.speaks && EXECUTORS.has(one.name));
    const to = row.children, kind = one.share >= 1 ? "bad" : one.share >= 0.8 ? "warn" : "";
    place(to[1].firstChild.firstChild, 0, one.share);
    if (kind) mark(to[1].firstChild, "kind", kind); else delete to[1].firstChild.dataset.kind;
    put(to[2], short(one.value));
    put(to[3], short(one.limit));
    const used = to[4].firstChild, className = kind ? "state" : "";
    if (used.className !== className) used.className = className;
    if (kind) mark(used, "kind", kind); else delete used.dataset.kind;
    put(used, `${number(Math.floor(one.share * 100 + 1e-9))} %${kind === "bad" ? " reached" : ""}`);
  }, "No limits known yet");
}

const STANDS = { ready: "good", waiting: "warn", connecting: "warn", silent: "bad", gone: "bad" };

function stages(now) {
  rows($("stages"), now.stages, (one) => one.name, (one) => {
    const row = cells("", "break", "n wide dim", "n", "n", "n wide", "n wide")();
    row.children[0].append(one.name);
    row.children[1].append(make("span", "state"), make("small"));
    return row;
  }, (row, one) => {
    const to = row.children, waits = one.waiting_for ? ` for ${one.waiting_for}` : one.note ? ` ${one.note}` : "";
    mark(to[1].firstChild, "kind", STANDS[one.state]);
    put(to[1].firstChild, one.state);
    put(to[1].lastChild, one.state === "gone" ? "" : one.state === "silent" ? ` ${number(one.age_s, 0)} s${waits}` : waits);
    put(to[2], String(one.pid));
    put(to[3], number(Math.max(0, one.starts - 1)));
    put(to[4], number(one.errors));
    put(to[5], one.cpu === null ? "–" : number(one.cpu, 2));
    put(to[6], one.memory_mb === null ? "–" : `${number(one.memory_mb)} MB`);
  }, "No stage has been seen yet");
  facts($("feeds"), now.feeds, (one) => [`${one.name} ← ${one.venue || "venue"}`, one.connected ? "good" : "bad", one.connected ? "connected" : "not connected",
    `${one.valid} books valid · ${number(one.frames)} frames · gaps ${one.gaps} · reconnects ${one.reconnects} · malformed ${one.malformed} · crossed ${one.crossed} · quote mismatches ${one.quote_mismatches}`]);
  facts($("workers"), now.workers, (one) => [one.name, "", "",
    `${one.model || "no model yet"} ${one.provider ? `on ${one.provider.replace("ExecutionProvider", "")}` : ""} · ${number(one.predictions)} predictions · p50 ${micro(one.p50_us)} µs, p99 ${micro(one.p99_us)} µs · errors ${one.model_errors}${one.shadow ? ` · challenger ${one.shadow}` : ""}`]);
}

function facts(parent, items, words) {
  rows(parent, items, (one) => one.name, () => make("li", "", make("b"), " ", make("span"), " ", make("span", "soft")), (row, one) => {
    const [title, kind, state, more] = words(one), [head, pill, rest] = row.children;
    put(head, title);
    pill.hidden = !state;
    if (pill.className !== "state") pill.className = "state";
    mark(pill, "kind", kind);
    put(pill, state);
    put(rest, more);
  });
}

function side(cell, name) {
  const className = `side ${name === "BUY" ? "b" : "s"}`;
  if (cell.className !== className) cell.className = className;
  put(cell, name === "BUY" ? "Buy" : "Sell");
}

function fills(now) {
  rows($("fills"), now.fills.slice(-12).reverse(), (one) => one.id, (one) => {
    const row = cells("dim", "", "side", "n", "n", "n wide")();
    row.dataset.id = one.id;
    row.dataset.order = one.order;
    return row;
  }, (row, one) => {
    const to = row.children;
    when(to[0], one.at_ns);
    put(to[1], one.symbol);
    side(to[2], one.side);
    put(to[3], quantity(one.qty));
    put(to[4], price(one.price));
    put(to[5], number(one.fee, 4));
  }, now.journal.error ? `No journal: ${now.journal.error}` : "No fill yet");
}

const ENDS = { filled: "good", rejected: "bad", unknown: "bad" };

function orders(now) {
  rows($("orders"), now.orders.slice(-12).reverse(), (one) => one.id, (one) => {
    const row = cells("dim", "", "side", "n", "n wide", "break")();
    row.dataset.id = one.id;
    row.children[5].append(make("span", "state"), make("small"));
    return row;
  }, (row, one) => {
    const to = row.children;
    when(to[0], one.at_ns);
    put(to[1], one.symbol);
    side(to[2], one.side);
    put(to[3], one.filled && one.filled !== one.qty ? `${quantity(one.filled)} of ${quantity(one.qty)}` : quantity(one.qty));
    put(to[4], price(one.price));
    mark(to[5].firstChild, "kind", ENDS[one.state] ?? "");
    put(to[5].firstChild, one.state);
    put(to[5].lastChild, one.reason ? ` ${one.reason}` : "");
  }, "No order yet");
}

function refusals(now) {
  const counts = Object.entries(now.refusals).sort((a, b) => b[1] - a[1]);
  rows($("refusal-counts"), counts, ([name]) => name, ([name]) => make("li", "", `${name} `, make("b")), (row, [, count]) => put(row.lastChild, number(count)));
  rows($("refusals"), now.recent_refusals.slice(-10).reverse(), (one) => `${one.at_ns} ${one.symbol} ${one.reason}`, cells("dim", "", "break", "n", "n"), (row, one) => {
    const to = row.children, unit = one.unit && one.unit !== "quote" ? ` ${one.unit}` : "";
    when(to[0], one.at_ns);
    put(to[1], one.symbol);
    put(to[2], one.reason);
    put(to[3], one.value === null ? "" : `${short(one.value)}${unit}`);
    put(to[4], one.limit === null ? "" : `${short(one.limit)}${unit}`);
  }, "Nothing was refused lately");
}

function models(now) {
  facts($("models"), now.judged.models.map((one) => ({ ...one, name: one.id, title: one.name })), (one) => {
    const drift = one.drift === null ? "drift not measured" : one.drift.shifted === null ? "drift: too few rows yet"
      : `drift: ${one.drift.shifted} columns shifted${one.drift.worst.length ? `, most ${one.drift.worst[0][0]} (PSI ${number(one.drift.worst[0][1], 2)})` : ""}`;
    const score = one.brier === null ? "no outcome with a move yet"
      : `Brier ${number(one.brier, 4)} against ${number(one.brier_base, 4)} of the base rate\ncalibration error ${number(one.ece, 3)}\nhits ${number(one.hit_rate * 100, 1)} %`;
    return [`${one.title} ${one.id.slice(0, 8)}`, one.role === "live" ? "good" : "", one.role, `${number(one.known)} judged after ${one.horizon_s} s\n${score}\n${drift}`];
  });
  // A chart without points is an empty half of the card.
  $("chart-calibration").hidden = !now.judged.models.some((one) => one.bins?.length);
  const parent = $("models");
  if (!now.judged.models.length && !parent.firstChild) parent.append(make("li", "", "Nothing is judged yet: an outcome is known a horizon after its prediction."));
  else if (now.judged.models.length && parent.firstChild && !parent.known?.size) parent.firstChild.remove();
}

function notes(now, chosen) {
  const { enter } = now.threshold;
  put($("probability-note"), chosen?.p_up === null || !chosen ? "no prediction told yet" : `orders outside 0.5 ± ${enter}`);
  put($("depth-note"), chosen?.spread_bps == null ? "" : `spread ${number(chosen.spread_bps, 2)} bps`);
  put($("profit-note"), `day's loss ${number(Math.max(0, now.numbers.day_loss), 2)}, drawdown ${number(now.numbers.drawdown, 2)}`);
}

// ---- acting

function dress() {
  const can = state.hello?.controls && state.unlocked;
  mark(document.body, "controls", can ? "open" : "locked");
  for (const button of document.querySelectorAll(".act")) {
    button.setAttribute("aria-disabled", String(!can));
    button.title = can ? "" : state.hello?.controls ? "Takes the token: unlock first" : "View only";
  }
  $("unlock").hidden = !state.hello?.controls || can;
  put($("about"), (state.hello && !state.hello.controls
    ? "View only: start the pipeline with $ALPHA_MONITOR_TOKEN (16 characters or more) to have the buttons, or open the address that alpha run prints. " : "")
    + "What is shown is read from the pipeline's memory and journal. Times are of this browser.");
  if (state.hello) charts.begin(state.hello.charts, state.hello.sheets);
}

let doing = null;

for (const button of document.querySelectorAll(".act")) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") === "true") {
      if (state.hello?.controls) askToken(TAKES);
      else announce("View only: this monitor was started without a token");
      return;
    }
    doing = button.dataset.do;
    const told = ACTIONS[doing];
    put($("confirm-h"), told.title);
    put($("confirm-what"), told.what);
    put($("confirm-said"), "");
    put($("confirm-yes"), told.yes);
    put($("confirm-no"), "Cancel");
    $("confirm-yes").className = doing === "halt" ? "danger" : "";
    $("confirm-yes").hidden = false;
    $("why").value = "";
    $("why").hidden = document.querySelector("label[for=why]").hidden = doing === "resume";
    $("confirm").showModal();
    $("confirm-yes").focus();
  });
}

/** Say it, and have the answer: {ok, text}. */
function ask(message) {
  return new Promise((resolve) => {
    const id = ++state.asked;
    if (socket?.readyState !== WebSocket.OPEN) {
      resolve({ ok: false, text: "there is no connection to the monitor: use `alpha halt` in a terminal" });
      return;
    }
    state.waiting.set(id, resolve);
    say({ ...message, id });
  });
}

const control = (action, why) => ask({ type: "control", do: action, confirm: action, why, token: token() });

/** Unlock if it is the right token; what is known to be wrong is not kept. Returns the answer. */
async function check(given) {
  const answer = await ask({ type: "token", token: given });
  state.unlocked = answer.ok;
  if (answer.ok) remember(session, TOKEN, given);
  else if (answer.text.startsWith("refused") && token() === given) {
    remember(session, TOKEN, null);
    tell("The token of this page's address is not that of this run: view only.");
  }
  dress();
  return answer;
}

async function confirmed() {
  if (!doing || $("confirm-yes").hidden) return;
  const action = doing;
  $("confirm-yes").hidden = true;
  put($("confirm-said"), "Asked; waiting for the executor to confirm.");
  const { ok, text } = await control(action, $("why").value);
  if (ok) {
    $("confirm").close();
    tell(`Done: ${text}`);
    return;
  }
  put($("confirm-h"), "Not confirmed");
  put($("confirm-what"), "");
  $("why").hidden = document.querySelector("label[for=why]").hidden = true;
  put($("confirm-said"), text);
  put($("confirm-no"), "Close");
  $("confirm-no").focus();
  if (text.startsWith("refused: the token")) {
    remember(session, TOKEN, null);
    state.unlocked = false;
    dress();
  }
}

$("done-close").addEventListener("click", () => { $("done").hidden = true; });
$("confirm-yes").addEventListener("click", confirmed);
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("why").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); confirmed(); } });

const TAKES = "Controls take the token: the one that alpha run printed, or $ALPHA_MONITOR_TOKEN.";

function askToken(words) {
  put($("token-what"), words);
  put($("token-said"), "");
  $("token-in").value = "";
  $("token").showModal();
  $("token-in").focus();
}
async function useToken() {
  const given = $("token-in").value.trim();
  if (!given || checking) return;
  if (socket?.readyState !== WebSocket.OPEN) { // nothing is shown without it: the link is opened with it, or refused
    remember(session, TOKEN, given);
    $("token").close();
    if (socket === null) connect();
    return;
  }
  checking = true;
  put($("token-said"), "Checking.");
  const { ok, text } = await check(given);
  checking = false;
  if (ok) {
    $("token").close();
    tell("Unlocked: the token is kept for this tab.");
  } else {
    put($("token-said"), text.startsWith("refused") ? "That is not the token of this run." : text);
    $("token-in").select();
  }
}
let checking = false;
$("unlock").addEventListener("click", () => askToken(TAKES));
$("token-yes").addEventListener("click", useToken);
$("token-no").addEventListener("click", () => $("token").close());
$("token-in").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); useToken(); } });

// ---- colours

const dark = matchMedia("(prefers-color-scheme: dark)");
function colours() {
  const wanted = recall(THEME) ?? (dark.matches ? "dark" : "light");
  mark(document.documentElement, "theme", wanted);
  $("theme").setAttribute("aria-pressed", String(wanted === "dark"));
  charts.colours();
  if (state.last) show(state.last);
}
dark.addEventListener("change", colours);
$("theme").addEventListener("click", () => {
  remember(lasting, THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  colours();
});

colours();
dress();
connect();
