"""halt, resume and arm: the kill switch and the safety catch, from any terminal."""

import getpass
import json
import os
import sys
import time

import click

from common import killswitch
from common.config import load
from common.gateways import is_live
from common.overview import Overview
from common.stage import exit_on_error

_PATIENCE_S = 2.0


@click.command()
@click.argument("reason", default="by hand")
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def halt(reason: str, path: str | None, as_json: bool) -> None:
    """Stop new orders and cancel working ones, at once, until `alpha resume`.

    The switch is a file that the executor looks at before each order, so it holds for an executor that is
    restarted, too. Exit code 0 if the executor confirms, 1 if it does not within two seconds: the switch is
    set all the same, and a stage that hangs must be looked at.
    """
    with exit_on_error():
        config = load(path)
        found = killswitch.halt(config.state_dir, reason, _who())
        confirmed = _await(config.instance.name, 1)
        _tell(as_json, {"halted": True, "why": found.why, "who": found.who, "confirmed": confirmed},
              f"halted: {found.why}" + ("" if confirmed else
                                        "; no executor confirms it: none runs, or it hangs (alpha status)"))
    sys.exit(0 if confirmed else 1)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def resume(path: str | None, as_json: bool) -> None:
    """Lift the kill switch. Exit code 0 if the executor confirms that it trades again, 1 if not."""
    with exit_on_error():
        config = load(path)
        lifted = killswitch.resume(config.state_dir)
        confirmed = _await(config.instance.name, 0)
        _tell(as_json, {"halted": not confirmed, "lifted": lifted._asdict() if lifted else None},
              (f"lifted: {lifted.why}" if lifted else "nothing was halted")
              + ("" if confirmed else "; the executor does not confirm that it trades (alpha status)"))
    sys.exit(0 if confirmed else 1)


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
def arm(path: str | None) -> None:
    """Let the executor trade on a live venue until it starts again; there it always starts disarmed.

    Live is what market.live says is, and every order gateway that is not on this machine.
    """
    with exit_on_error():
        config = load(path)
        killswitch.arm(config.state_dir, _who())
        click.echo("armed" if is_live(config) else "armed; nothing here is live, so nothing waited for it")


def _who() -> str:
    """Who is at the keyboard, if the machine knows: a container may not. The switch does not depend on it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _await(instance: str, halted: int) -> bool:
    """Whether a living executor says so within two seconds."""
    end = time.monotonic() + _PATIENCE_S
    overview = Overview(instance)
    while time.monotonic() < end:
        overview.refresh()
        if overview.ready("executor") and overview.get("executor", "halted") == halted:
            return True
        time.sleep(0.02)
    return False


def _tell(as_json: bool, fields: dict, text: str) -> None:
    print(json.dumps(fields) if as_json else text)
