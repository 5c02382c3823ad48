"""top: the pipeline in a terminal, live. It reads what `common.watch.watched` tells, once a second, and nothing else.

    reads   the telemetry of the stages, the books ring, the journal, the files of the kill switch, alerts.json
    writes  halt.json and reduce.json in the state folder, when a key asks for it and is confirmed

The figures stand where a text of the same size has them (`common.watch.picture`), so a screen and `--once` agree.
It runs when a core is idle, and takes none from the stages.
"""

import json
import os
import shutil
import sys
import time

import click

from common import placement
from common.config import Config, load
from common.stage import exit_on_error
from common.watch.picture import ASCII, BLOCKS, Trails, brief, picture, plain
from common.watch.watched import Watched

NOTHING = 7  #: exit code where nothing runs, as of `alpha status`
_EVERY_S = 1.0
_RATES_S = 1.05  # a snapshot tells rates over one second


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--once", is_flag=True, help="Print one picture as text, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print snapshots as JSON, one a line; with --once a single one.")
def top(path: str | None, once: bool, as_json: bool) -> None:
    """Show the pipeline live: alerts, stages, rates, latency, books, positions, orders, refusals, limits.

    Reads the telemetry of the stages, the books ring and the journal, once a second and when a core is idle; no stage
    notices. Writes nothing but the kill switch, when you ask for it. Without a terminal, or without textual (extra
    `watch`), it prints a line a second instead. On a machine without an idle core it lags; `alpha halt` does not.

    Where the executor is silent or gone, figures that are its own are marked as its last word, with its time; positions
    and what they are worth go on, from the journal and the books.

    \b
    Keys
      q quit    s, tab next symbol    p pause    ? help
      h halt    r reduce    f flatten    u resume: each asks first

    \b
    Examples
      alpha top
      alpha top --once                       one picture, for a report
      alpha top --json | jq .numbers.pnl     a snapshot a second

    Exit codes: 0 done, 2 the configuration is wrong, 7 nothing runs.
    """
    with exit_on_error():
        config = load(path)
        placement.step_back()
        watched = Watched(config)
        snapshot = watched.take(())
        if not snapshot["stages"]:
            print(f"alpha: nothing of instance {config.instance.name!r} runs; start it with: alpha run",
                  file=sys.stderr)
            sys.exit(NOTHING)
        try:
            if as_json or once:
                _print(watched, once, as_json)
            elif (why := _unable()) is None:
                _screen(config, watched)
            else:
                print(f"alpha top: {why}: a line a second instead", file=sys.stderr)
                _print(watched, once, as_json)
        finally:
            watched.close()


def _unable() -> str | None:
    """Why there cannot be a screen, None if there can."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        return "no terminal"
    try:
        import textual  # noqa: F401
    except ImportError:
        return "textual is not installed (pip install 'predictive-alpha[watch]')"
    return None


def _screen(config: Config, watched: Watched) -> None:
    from procs.top_screen import Top

    Top(config, watched).run()


def _print(watched: Watched, once: bool, as_json: bool) -> None:
    """Until Ctrl-C, or one picture."""
    trails = Trails()
    try:
        snapshot = watched.take(())
        if once and any(stage["state"] != "gone" for stage in snapshot["stages"]):
            time.sleep(_RATES_S)  # rates need two looks
            snapshot = watched.take(())
        while True:
            trails.add(snapshot)
            if as_json:
                print(json.dumps(snapshot), flush=True)
            elif once:
                size = shutil.get_terminal_size((100, 50))
                print(plain(picture(snapshot, trails, size.columns, size.lines, blocks=_blocks())))
            else:
                print(brief(snapshot), flush=True)
            if once:
                return
            time.sleep(_EVERY_S)
            snapshot = watched.take(())
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _blocks() -> str:
    """What this terminal can show."""
    return BLOCKS if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else ASCII
