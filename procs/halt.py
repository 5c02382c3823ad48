"""halt, reduce, flatten, resume and arm: the kill switch, its milder forms and the safety catch, from any terminal."""

import json
import sys
from typing import Any, NoReturn

import click

from common import killswitch
from common.config import anyway, load
from common.gateways import is_live
from common.stage import exit_on_error
from common.watch.controls import Done, act, who

BY_HAND = "by hand"  #: the reason of one who gives none


@click.command()
@click.argument("reason", default=BY_HAND)
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def halt(reason: str, path: str | None, as_json: bool) -> None:
    """Stop new orders and cancel working ones, at once, until `alpha resume`.

    The switch is a file that the executor looks at before each order, so it holds for an executor that is
    restarted, too. It is set although the configuration was mistyped meanwhile: then that counts which the executor
    was started with. Exit code 0 if the executor confirms, 1 if it does not within two seconds: the switch is set all
    the same, and a stage that hangs must be looked at. Working orders are then cancelled from here: those that the
    journal does not know at their end are asked for at the venue, with the keys of this terminal, and what became of
    each is told.

    \b
    Examples
      alpha halt "looks wrong"
      alpha halt --json
    """
    with exit_on_error():
        done = act(anyway(path), "halt", reason.strip() or BY_HAND, who())
        fields = {"halted": True, **_told(done)}
        if done.outcomes is not None:
            fields |= {"orders": [outcome._asdict() for outcome in done.outcomes], "problem": done.problem}
    _end(as_json, fields, done)


@click.command()
@click.argument("reason", default=BY_HAND)
@click.option("--lift-halt", "lift", is_flag=True, help="Where all is halted: do this instead.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reduce(reason: str, lift: bool, path: str | None, as_json: bool) -> None:
    """Let only orders leave that shrink a position, until `alpha resume`.

    Working orders that might make one larger are cancelled. While all is halted nothing leaves: --lift-halt lets this
    take the halt's place. Exit code 0 if the executor confirms, 1 if it does not within two seconds, and what it does
    instead is told: it will reduce as soon as it may.

    \b
    Examples
      alpha reduce "into the close"
    """
    _reduce(reason, path, as_json, lift, flatten=False)


@click.command()
@click.argument("reason", default=BY_HAND)
@click.option("--lift-halt", "lift", is_flag=True, help="Where all is halted: do this instead.")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def flatten(reason: str, lift: bool, path: str | None, as_json: bool) -> None:
    """Leave every position, and let nothing else leave, until `alpha resume`.

    A position is left within a tenth of a second, or with the next tick of its symbol, whether anything is predicted or
    not: at the touch, by orders of at most risk.max_order_notional, inside all limits; one whose book is not valid
    stays until it is. While all is halted nothing leaves: --lift-halt lets this take the halt's place, also after a
    loss above its limit. Exit code 0 if the executor confirms that it does so, 1 if it does not within two seconds, and
    what it does instead is told; `alpha position` shows what is still held.

    \b
    Examples
      alpha flatten "over the weekend"
      alpha flatten --lift-halt "out of it"
      alpha position
    """
    _reduce(reason, path, as_json, lift, flatten=True)


def _reduce(reason: str, path: str | None, as_json: bool, lift: bool, flatten: bool) -> None:
    with exit_on_error():
        done = act(anyway(path), "flatten" if flatten else "reduce", reason.strip() or BY_HAND, who(), lift=lift)
    _end(as_json, {"reducing": True, "flatten": done.switch.flatten, **_told(done)}, done)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def resume(path: str | None, as_json: bool) -> None:
    """Lift the kill switch, and what `reduce` and `flatten` have set. Exit code 0 if the executor trades again within
    two seconds, and goes on to; 1 if not, and what it does instead is told.

    \b
    Examples
      alpha resume
    """
    with exit_on_error():
        done = act(load(path), "resume", "", who())
    _end(as_json, {"halted": not done.ok, "confirmed": done.ok, "lifted": done.switch and done.switch._asdict()}, done)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def arm(path: str | None, as_json: bool) -> None:
    """Let the executor trade on a live venue until it starts again; there it always starts disarmed.

    Live is what market.live says is, and every order gateway that is not on this machine.

    \b
    Examples
      alpha arm
    """
    with exit_on_error():
        config = load(path)
        killswitch.arm(config.state_dir, who())
        live = is_live(config)
        text = "armed" if live else "armed; nothing here is live, so nothing waited for it"
        print(json.dumps({"armed": True, "live": live}) if as_json else text)


def _told(done: Done) -> dict[str, Any]:
    return {"why": done.switch.why, "who": done.switch.who, "confirmed": done.ok}


def _end(as_json: bool, fields: dict[str, Any], done: Done) -> NoReturn:
    print(json.dumps(fields) if as_json else done.text)
    sys.exit(0 if done.ok else 1)
