"""capture: judge recordings, say what they are, convert them, and draw them. Reads files and nothing that runs."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from common import capture_lines, capture_plot, captures, instant, venues
from common import convert as converting
from common.capture_lines import MARK
from common.errors import AlphaError, ConfigError, VenueError
from common.recorder import MANIFEST
from common.stage import exit_on_error
from common.verify import FLAWED, OK, SCHEMA, UNUSABLE, Judge, worst

EXIT_CODES = {OK: 0, FLAWED: 1, UNUSABLE: VenueError.exit_code}
SCANNED_BYTES = 16 << 20  #: `info` counts the lines of a file up to this size even where its manifest tells of them

_EVERY, _PAUSE_S = 1 << 14, 10.0  #: lines, and then at least seconds, between two words about progress
_TERMINAL_S = 0.5  #: the same on a terminal, where they replace each other
_SHOWN = 3  #: findings of a kind that are printed
_PACKED = MARK + b'"frame"'
_CONNECT = MARK + b'"connect"'
_FILES = click.argument("paths", metavar="FILE...", nargs=-1, required=True,
                        type=click.Path(exists=True, dir_okay=False),
                        callback=lambda context, parameter, paths: captures.without_manifests(paths))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Stream(NamedTuple):
    """Files that hold one stream of a venue's frames, in order."""

    venue: str
    symbols: tuple[str, ...]
    paths: list[str]


@click.group()
def capture() -> None:
    """Judge, describe, convert and draw recordings.

    Reads files, and nothing that runs. Each command says what it writes.

    \b
    Examples
      alpha capture verify day1.gz day2.gz
      alpha capture info day1.gz
      alpha capture plot day1.gz --out day.png
      alpha capture convert day1.gz --out ticks.parquet
    """


@capture.command()
@_FILES
@_JSON
def verify(paths: tuple[str, ...], as_json: bool) -> None:
    """Judge recordings: what they hold, what is wrong with them, and whether they can be relied upon.

    \b
    ok        all that was checked holds                                        exit code 0
    flawed    something is missing, or contradicts itself or the venue          exit code 1
    unusable  no book was ever valid, or the file is of nothing known here      exit code 4

    Files that follow each other are judged as one. A disconnect that the recording tells of is no flaw, nor is a
    clock that differs from the venue's: both are stated.

    \b
    Examples
      alpha capture verify day1.gz day2.gz
      alpha capture verify --json session-*.zst | jq .verdict
    """
    with exit_on_error():
        judged = [told for stream in streams(paths) for told in _judged(stream)]
        verdict = worst([told["verdict"] for told in judged])
        if as_json:
            click.echo(json.dumps({"schema": SCHEMA, "verdict": verdict, "captures": judged}, indent=1))
        else:
            for told in judged:
                click.echo("\n".join(_verdict(told)))
    sys.exit(EXIT_CODES[verdict])


@capture.command()
@_FILES
@_JSON
def info(paths: tuple[str, ...], as_json: bool) -> None:
    """Say what recordings are: format, venue, symbols, time, frames, connections.

    Judges nothing. A file of more than 16 MiB is not read through where its manifest tells of it.

    \b
    Examples
      alpha capture info day1.gz
      alpha capture info --json today/*.zst

    Exit codes: 0 done, 4 a file cannot be read.
    """
    with exit_on_error():
        told = [_info(path) for path in paths]
        if as_json:
            click.echo(json.dumps(told, indent=1))
        else:
            for file in told:
                click.echo("\n".join(_described(file)))


@capture.command()
@_FILES
@click.option("--out", required=True, help="The picture: .png, .svg or .pdf.")
@click.option("--symbol", help="Which symbol, where the recordings have several (default: the first).")
@click.option("--from", "start", help="Draw from this time of receipt on: 2024-07-19T00:01:00, UTC.")
@click.option("--to", "end", help="Draw up to this time of receipt.")
def plot(paths: tuple[str, ...], out: str, symbol: str | None, start: str | None, end: str | None) -> None:
    """Draw price and trades, spread, and depth over time; gaps and times without a valid book are shaded.

    Needs matplotlib: pip install 'predictive-alpha[plot]'.

    \b
    Examples
      alpha capture plot day1.gz day2.gz --out day.png --from 2024-07-19T00:01:00 --to 2024-07-19T00:02:00
    """
    with exit_on_error():
        capture_plot.check(out)
        from_ns = instant.parse(start, "--from") if start else 0
        to_ns = instant.parse(end, "--to") if end else 2**63 - 1
        stream = _stream_of(streams(paths), symbol)
        judge = Judge(venues.create(stream.venue, stream.symbols))
        series = capture_plot.Series(judge, stream.symbols.index(symbol) if symbol else 0, from_ns, to_ns)
        for recv_ns in _played(judge, stream.paths, to_ns):
            series.look(recv_ns)
        series.close()
        capture_plot.draw(series, judge.report(), out)


@capture.command()
@_FILES
@click.option("--out", required=True, help="What to write; its ending says what.")
@click.option("--format", "kind", default="", help="Of the files, where their names mislead.")
@click.option("--venue", default="", help="session: the venue, as `market.venue` names it.")
@click.option("--connection", default="", help="session: which connection.")
@click.option("--symbol", "symbols", multiple=True, help="tardis: only these; hftbacktest: how the one is called.")
@click.option("--tick", default="", help="hftbacktest: increment of prices.")
@click.option("--lot", default="", help="hftbacktest: increment of quantities.")
@click.option("--exact", is_flag=True, help=".parquet: counts of 1e-8 as integers instead of doubles.")
@_JSON
def convert(paths: tuple[str, ...], out: str, kind: str, venue: str, connection: str, symbols: tuple[str, ...],
            tick: str, lot: str, exact: bool, as_json: bool) -> None:
    """Convert recordings of any known format.

    \b
    Formats  captures of ours, foreign recordings of Binance, sessions, lobster, tardis, hftbacktest
    --out    .parquet            ticks, one row each, for research
             .zst, .gz, others   a capture, to replay, to judge, to draw

    \b
    Examples
      alpha capture convert day1.gz day2.gz --out ticks.parquet
      alpha capture convert LOBSTER_SampleFile.zip --out goog.zst
    """
    with exit_on_error():
        options = converting.Options(kind, venue, connection, symbols, tick, lot, exact)
        told = converting.convert(paths, out, lambda words: click.echo(words, err=True), options)
        if as_json:
            click.echo(json.dumps(told._asdict(), indent=1))
        else:
            click.echo(f"{told.target}: {', '.join(told.symbols)} on {told.venue}, from {told.format}: "
                       f"{told.messages:,} messages" + (f", {told.ticks:,} ticks" if told.ticks else ""))
            for name, count in told.counts.items():
                click.echo(f"  {name:<20} {count:,}")


# ---- reading


def streams(paths: tuple[str, ...]) -> list[Stream]:
    """`paths` sorted into what is of one venue and the same symbols, and in order of time within it. Raises VenueError
    where a file is of nothing known here."""
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for path in paths:
        found.setdefault(tuple(captures.describe([path])), []).append(path)
    return [Stream(venue, symbols, [name for session in sorted(captures.order(files), key=_first_ns)
                                    for name in session])
            for (venue, symbols), files in found.items()]


def _first_ns(session: list[str]) -> int:
    return next((recv_ns for recv_ns, _ in captures.lines(session[0], _ignore)), 0)


def _ignore(words: str) -> None:
    """What a file lacks is said when it is read through."""


def _stream_of(found: list[Stream], symbol: str | None) -> Stream:
    if symbol is None:
        return found[0]
    for stream in found:
        if symbol in stream.symbols:
            return stream
    raise ConfigError("the recordings have no such symbol", where=f"--symbol={symbol}", remedy="known: " + ", ".join(
        name for stream in found for name in stream.symbols))


def _judged(stream: Stream) -> Iterator[dict[str, Any]]:
    """The reports on a stream: one, or several where files overlap in time, and so are recordings of their own."""
    judge, names = None, []
    for path in stream.paths:
        if judge is None or _first_ns([path]) < judge.last_ns - Judge.STEP_NS:
            if judge is not None:
                yield {"files": names, **judge.report()}
            judge, names = Judge(venues.create(stream.venue, stream.symbols)), []
        names.append(path)
        for _ in _played(judge, [path]):
            pass
    if judge is not None:
        yield {"files": names, **judge.report()}


def _played(judge: Judge, paths: list[str], to_ns: int = 2**63 - 1) -> Iterator[int]:
    """The judge goes through files; the time of receipt of each line. A file that is damaged is judged up to there."""
    progress = _Progress()
    for path in paths:
        name, number, packed, controls = Path(path).name, 0, 0, 0
        first_ns = last_ns = 0
        try:
            for recv_ns, text in captures.tape([path], judge.cut_off):
                if recv_ns > to_ns:
                    return
                number += 1
                if text.startswith(MARK):
                    controls += 1
                    packed += text.startswith(_PACKED)
                first_ns, last_ns = first_ns or recv_ns, recv_ns
                judge.line(recv_ns, text, name, number)
                yield recv_ns
                if number % _EVERY == 0:
                    progress.tell(name, judge.lines)
        except VenueError as error:
            judge.cut_off(str(error))
        counted = {"frames": number - controls + packed, "control_lines": controls - packed,
                   "first_recv_ns": first_ns, "last_recv_ns": last_ns}
        judge.contradiction(name, _contradictions(path, counted))
    progress.end()


def _contradictions(path: str, counted: dict[str, int]) -> list[str]:
    """What the manifest beside a file says and the file does not."""
    manifest = _manifest(path)
    if manifest is None:
        return []
    with open(path, "rb") as file:
        found = {**counted, "bytes": os.path.getsize(path),
                 "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return [f"{Path(path).name}: {key} is {value}, by its manifest {manifest.get(key)}"
            for key, value in found.items() if manifest.get(key) != value]


def _manifest(path: str) -> dict[str, Any] | None:
    """What stands beside a file; None where nothing does. Raises VenueError where it cannot be read."""
    beside = Path(f"{path}{MANIFEST}")
    try:
        told = json.loads(beside.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise VenueError("the manifest of a recording cannot be read", where=f"{beside}: {error}",
                         remedy="remove it, or fetch it again") from None
    if not isinstance(told, dict):
        raise VenueError("the manifest of a recording is not a JSON object", where=str(beside))
    return told


class _Progress:
    """Tells of the progress of long work on standard error: in place on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._pause_s = _TERMINAL_S if self._terminal else _PAUSE_S
        self._next = self._started + self._pause_s
        self._told = False

    def tell(self, name: str, lines: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._told, self._next = True, now + self._pause_s
        words = f"{name}: {lines:,} lines, {lines / (now - self._started):,.0f}/s"
        click.echo(f"\r\x1b[K{words}" if self._terminal else words, err=True, nl=not self._terminal)

    def end(self) -> None:
        if self._terminal and self._told:
            click.echo("\r\x1b[K", err=True, nl=False)


# ---- describing


def _info(path: str) -> dict[str, Any]:
    header, manifest = captures.header(path), _manifest(path)
    venue, symbols = captures.describe([path])
    size = os.path.getsize(path)
    told = {"file": path, "format": "foreign" if header is None else f"capture {capture_lines.VERSION}",
            "venue": venue, "symbols": list(symbols), "session": header.session if header else "",
            "part": header.part if header else 0, "bytes": size, "manifest": manifest is not None}
    if manifest is not None and size > SCANNED_BYTES:
        return {**told, "frames": manifest.get("frames"), "control_lines": manifest.get("control_lines"),
                "connections": None, **_span(manifest.get("first_recv_ns"), manifest.get("last_recv_ns")),
                "whole": True, "problem": ""}
    return {**told, **_scan(path, header is not None)}


def _scan(path: str, ours: bool) -> dict[str, Any]:
    """What is counted by going through a file."""
    problems: list[str] = []
    number = controls = connections = first_ns = last_ns = 0
    text = b""
    progress = _Progress()
    try:
        for recv_ns, text in captures.lines(path, problems.append):
            number += 1
            first_ns, last_ns = first_ns or recv_ns, recv_ns
            if text.startswith(MARK):
                controls += not text.startswith(_PACKED)
                connections += text.startswith(_CONNECT)
            if number % _EVERY == 0:
                progress.tell(Path(path).name, number)
    except AlphaError as error:
        problems.append(str(error))
    progress.end()
    whole = not problems and (not ours or text.startswith(MARK + b'"end"'))
    return {"frames": number - controls, "control_lines": controls, "connections": connections if ours else None,
            **_span(first_ns, last_ns), "whole": whole, "problem": "; ".join(problems)}


def _span(first_ns: int | None, last_ns: int | None) -> dict[str, Any]:
    first, last = first_ns or 0, last_ns or 0
    return {"from_ns": first, "to_ns": last, "from": instant.utc(first), "to": instant.utc(last),
            "span_s": (last - first) / 1e9}


def _described(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['file']}: {told['format']}, {told['venue']}, {', '.join(told['symbols'])}"
    if told["session"]:
        yield f"  session {told['session']}, part {told['part']}"
    yield f"  {told['from']} to {told['to']}, {_duration(told['span_s'])}"
    words = [f"{told['frames']:,} frames", f"{told['control_lines']:,} control lines", f"{told['bytes']:,} bytes"]
    if told["connections"] is not None:
        words.append(f"connections: {told['connections']:,}")
    words.append("with manifest" if told["manifest"] else "no manifest")
    yield "  " + ", ".join(words)
    if not told["whole"]:
        yield f"  not whole: {told['problem'] or 'no orderly end'}"


# ---- a verdict for people


def _verdict(told: dict[str, Any]) -> Iterator[str]:
    yield f"{', '.join(told['symbols'])} on {told['venue']}: {told['verdict']}"
    yield from (f"  ! {reason}" for reason in told["reasons"])
    yield from (f"  - {note}" for note in told["notes"])
    yield f"  {'files':<10} {', '.join(told['files'])}"
    yield f"  {'time':<10} {told['from']} to {told['to']}, {_duration(told['span_s'])}"
    yield (f"  {'frames':<10} {told['frames']:,}: {told['ticks']:,} ticks, {told['trades']:,} trades, "
           f"{told['quotes']:,} quotes; snapshots: {told['snapshots']:,}")
    if told["connections"]:
        yield (f"  {'network':<10} connections: {told['connections']:,}, disconnects: {told['disconnects']:,}, "
               f"resynchronisations: {told['resyncs']:,}")
    for title, (right, wrong), words in (("checksums", told["checksums"].values(), "right"),
                                         ("quotes", told["quote_checks"].values(), "equal to the venue's own")):
        if right + wrong:
            yield f"  {title:<10} {right:,} of {right + wrong:,} {words}"
    for name, symbol in told["symbols"].items():
        first = symbol["first_valid_s"]
        yield (f"  {name:<10} book valid {symbol['valid_share']:.2%} of the time"
               + (f", first after {first:,.1f} s" if first is not None else ", never")
               + f"; {symbol['deltas']:,} deltas, {symbol['trades']:,} trades, {symbol['quotes']:,} quotes")
    for name, found in told["findings"].items():
        if found["count"] > 1:
            yield f"  {name.replace('_', ' ')}: {found['count']:,}"
            for entry in found["first"][:_SHOWN]:
                place = " ".join(filter(None, (entry["at"], entry["symbol"], entry["where"])))
                yield f"      {place}{': ' if entry['text'] else ''}{entry['text']}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {rest} s" if hours else f"{minutes} min {rest} s"
