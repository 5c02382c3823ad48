"""logs: what the stages said, of all of them in the order of time."""

import collections
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from common.config import LOG_LEVELS, load
from common.log_files import Follower, found, history
from common.log_lines import Event, as_json, as_text
from common.stage import exit_on_error
from procs.run import Duration

_LOOK_S = 0.2
_SHOWN = 20  # lines before those that are waited for
_COLOURS = {"debug": "bright_black", "warning": "yellow", "error": "red", "critical": "bright_red"}
_NOTHING = 7


@click.command()
@click.argument("stages", nargs=-1)
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--level", type=click.Choice(LOG_LEVELS), default="debug", help="Only events of this level and above.")
@click.option("--since", type=Duration(), help="Only the last so long: 90s, 10m, 2h.")
@click.option("--grep", help="Only events that have this text in them, in capitals or not.")
@click.option("-n", "--lines", type=click.IntRange(0), help="Only the last so many (with -f and no --since: 20).")
@click.option("--json", "as_lines", is_flag=True, help="One JSON object a line, as the files have it.")
def logs(stages: tuple[str, ...], path: str | None, follow: bool, level: str, since: float | None, grep: str | None,
         lines: int | None, as_lines: bool) -> None:
    """Show what STAGES said, all of them without any, in the order of time.

    Reads the files in the state folder (.alpha/log), those that were renamed when they were full, too, and what
    supervisord said itself. A stage is named as in `alpha status`; `inference` is every worker. Following goes on
    across restarts, and finds stages that come later. Lines that older versions wrote as text are
    read as well; what a process wrote without a time goes with the line before, or else after it.

    \b
    alpha logs
    alpha logs -f --level warning
    alpha logs executor inference --since 10m --grep rejected
    alpha logs --json --since 1h | jq 'select(.level == "error") | .event'

    \b
    Exit codes  0 something was there to be read; 7 no stage of that name has left a log
    """
    with exit_on_error():
        state_dir = load(path).state_dir
        shows = _Show(level, grep, as_lines)
        files = found(state_dir, stages)
        try:
            if follow:
                _follow(state_dir, stages, shows, since, lines)
            else:
                _print(_last(_chosen(history(files), shows, since), lines), shows)
        except (KeyboardInterrupt, BrokenPipeError):
            sys.stderr.close()  # the reader of a pipe may have gone; so may what flushes at exit
            return
    if not files:
        print(f"no log of {', '.join(stages) or 'any stage'} in {state_dir / 'log'}; what alpha run starts leaves them "
              "there", file=sys.stderr)
        sys.exit(_NOTHING)


class _Show:
    """What is shown, and how."""

    def __init__(self, level: str, grep: str | None, as_lines: bool) -> None:
        self._levels = frozenset(LOG_LEVELS[LOG_LEVELS.index(level):])
        self._grep, self._as_lines = grep.casefold() if grep else "", as_lines
        self._lively = not as_lines and sys.stdout.isatty()

    def __call__(self, event: Event) -> bool:
        if event.level not in self._levels:
            return False
        if not self._grep:
            return True
        text = f"{event.event}\n{event.traceback}\n{json.dumps(event.fields, default=str)}"
        return self._grep in text.casefold()

    def line(self, event: Event) -> str:
        if self._as_lines:
            return as_json(event)
        text = as_text(event)
        return click.style(text, fg=_COLOURS[event.level]) if self._lively and event.level in _COLOURS else text


def _chosen(events: Iterable[Event], shows: _Show, since: float | None) -> Iterator[Event]:
    begin = time.time_ns() - int(since * 1e9) if since else 0
    return (event for event in events if event.at_ns >= begin and shows(event))


def _last(events: Iterator[Event], count: int | None) -> Iterable[Event]:
    return events if count is None else collections.deque(events, count)


def _print(events: Iterable[Event], shows: _Show) -> None:
    for event in events:
        print(shows.line(event))
    sys.stdout.flush()


def _follow(state_dir: Path, stages: tuple[str, ...], shows: _Show, since: float | None, lines: int | None) -> None:
    files = found(state_dir, stages)
    followers = {name: Follower(name, path) for name, path in files.items()}
    told = history(files, {name: follower.place for name, follower in followers.items()})
    _print(_last(_chosen(told, shows, since), _SHOWN if lines is None and not since else lines), shows)
    while True:
        for name, path in found(state_dir, stages).items():
            if name not in followers:
                followers[name] = Follower(name, path, whole=True)
        events = [event for follower in followers.values() for event in follower.read()]
        _print(filter(shows, sorted(events, key=lambda event: event.at_ns)), shows)
        time.sleep(_LOOK_S)
