"""parity SESSION CAPTURE...: whether a recorded live session is what a replay of its frames gives, bit for bit.

    in    a folder of `alpha record --session` (common.session_log), and the captures recorded beside it
    out   what was compared, and the first difference (common.parity)
"""

import json
import sys
from pathlib import Path

import click

from common import captures
from common.errors import ContractError
from common.parity import Report, compare, shown
from common.session_log import KINDS, Session, find
from common.stage import exit_on_error

_DIFFERENT = 1  # exit code


@click.command()
@click.argument("session", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("paths", metavar="CAPTURE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False),
                callback=lambda context, parameter, paths: captures.without_manifests(paths))
@click.option("--model", "models", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The model that predicted, where it has moved; once for each. A single one is taken for all.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def parity(session: Path, paths: tuple[str, ...], models: tuple[Path, ...], as_json: bool) -> None:
    """Compare what a live pipeline made of its frames with what a replay makes of them.

    SESSION is the folder of a session that `alpha record --session` made, or the one that it is the only session in;
    a CAPTURE is a file that it recorded beside it. Ticks, rows, probabilities and decisions are compared bit by bit.
    Said are how many, what could not be compared and why, and the first difference.

    \b
    Examples
      alpha record --out today --session
      alpha parity today today/*.zst

    \b
    Exit code  0  no difference        2  these captures do not belong to this session
               1  a difference         3  another version or model, or nothing could be compared
                                       4  a capture cannot be read
    """
    with exit_on_error():
        recorded = Session(find(session))
        report = compare(recorded, paths, models, lambda words: print(words, file=sys.stderr))
        if as_json:
            print(json.dumps(report.as_dict(), indent=1))
        else:
            _print(report)
        if not report.compared["ticks"].total() and not report.differences:
            raise ContractError("nothing could be compared", where=f"{recorded.folder}: {report.lines:,} lines of the "
                                f"captures, {len(recorded.records('ticks')):,} ticks of the session",
                                remedy="see what was left out, and why")
    if report.differences:
        sys.exit(_DIFFERENT)


def _print(report: Report) -> None:
    for model in report.models:
        print(f"model {model}")
    for kind in KINDS:
        compared, different = report.compared[kind], report.different[kind]
        print(f"{kind:<12}{compared.total():>12,} compared {different.total():>10,} different "
              f"{report.missed[kind]:>10,} missed by the recorder")
        for symbol, count in sorted(compared.items()):
            print(f"{'':<12}{count:>12,} {symbol}")
        for reason, count in sorted(report.left_out[kind].items()):
            print(f"{'':<12}{count:>12,} left out: {reason}")
    first = report.first
    if first is None:
        print("no difference")
        return
    print(f"\nfirst difference: {first.kind}, column {first.column}")
    print(f"  live    {shown(first.live)}\n  replay  {shown(first.replay)}")
    print(f"  {first.symbol}, seq {first.seq} (in the replay {first.replay_seq}), {first.tick_kind}, venue id "
          f"{first.venue_id}, event_ns {first.event_ns}")
    print(f"  frame {first.place}, received {first.at_ns}\n  ticks around it:")
    for line in first.near:
        print(f"    {line}")
