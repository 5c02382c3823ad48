"""units: systemd units of the pipeline, from the same configuration and the same supervisord.conf as `alpha run`."""

import json
import os
import pwd
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from common import compiled, programs
from common.config import DEFAULT_FILE, ENV_CONFIG, ENV_PREFIX, Config, load, without_secret
from common.errors import ResourceError
from common.stage import BY_SYSTEMD, SUPERVISED, exit_on_error
from common.units import Setting, render, target_name
from procs import run

_TELLING = ("ALPHA_ALERTS__COMMAND",)  # overrides that may hold a password, where no address shows it
_PASSED = ("TMPDIR", "PYTHONPATH")  #: where the default run folder lies; where another checkout does


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--out", type=click.Path(file_okay=False), help="Write the units into this folder (default: print them).")
@click.option("--system/--user", default=False, help="For the machine's systemd, or for your own (default).")
@click.option("--secrets", type=click.Path(dir_okay=False),
              help="File with secrets (default: /etc/alpha/INSTANCE.env, or ~/.config/alpha/INSTANCE.env).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the text of each unit by its name.")
def units(path: str | None, out: str | None, system: bool, secrets: str | None, as_json: bool) -> None:
    """Make systemd units: a target, and a service for each stage, which systemd watches and starts again.

    Reads the configuration, the ALPHA_SECTION__KEY variables that are set (they are written into the units) and
    supervisord.conf, which lists the stages. Writes the units and makes the state folder, both with --out only. The
    loopback exchange is among them where the configuration speaks with it. Secrets are not written: systemd reads them,
    when a stage starts, from a file of NAME=value lines that you make, with mode 0600.

    \b
    Examples
      alpha units                                       print them
      alpha units --out ~/.config/systemd/user          then: systemctl --user daemon-reload
                                                              systemctl --user enable --now alpha-INSTANCE.target
      alpha units --system --out /etc/systemd/system    they run as the user who makes them
      alpha units --secrets /etc/alpha/live.env --json

    \b
    Then
      systemctl --user status 'alpha-*'                 what each stage waits for; it is active once it is ready
      journalctl --user -f -u 'alpha-*'                 the logs

    Exit codes: 0 done, 2 the configuration is wrong, 5 the file with secrets can be read by others, or the folder
    cannot be written.
    """
    with exit_on_error():
        config = load(path)
        source = Path(path or os.environ.get(ENV_CONFIG) or DEFAULT_FILE).resolve()
        text = run.render((run.ROOT / "supervisord.conf").read_text(), config, source)
        listed = tuple(program for program in programs.parse(text)
                       if program.name != "exchange" or programs.on_this_machine(config))
        setting, left_out = gather(config, source, text, system, secrets)
        made = render(listed, setting, left_out)
        if out:
            write(Path(out), made, [Path(folder) for folder in setting.writable])
        if as_json:
            print(json.dumps({"target": target_name(config.instance.name), "secrets": setting.secrets,
                              "left_out": list(left_out), "units": made}, indent=1))
        elif out:
            print("\n".join(str(Path(out) / name) for name in made))
        else:
            print("\n".join(f"# ---- {name}\n{unit}" for name, unit in made.items()))
        for line in advice(config, setting, left_out):
            click.echo(f"alpha units: {line}", err=True)


def gather(config: Config, source: Path, conf: str, system: bool, secrets: str | None,
           environ: Mapping[str, str] = os.environ) -> tuple[Setting, tuple[str, ...]]:
    """What the units are made for, and the variables that hold a secret and are left out. Raises ResourceError where
    others can read the file with secrets."""
    name = config.instance.name
    overrides = {key: value for key, value in environ.items() if key.startswith(ENV_PREFIX) and "__" in key}
    left_out = tuple(sorted(key for key, value in overrides.items()
                            if key in _TELLING or without_secret(value) != value))
    environment = programs.environment(conf)
    environment |= {key: value for key, value in overrides.items() if key not in left_out}
    environment |= {key: environ[key] for key in _PASSED if key in environ}
    environment |= {SUPERVISED: BY_SYSTEMD, "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                    "ALPHA_INSTANCE__STATE_DIR": str(config.state_dir), "ALPHA_INSTANCE__RUN_DIR": str(config.run_dir)}
    if not environment.get(ENV_CONFIG):
        environment.pop(ENV_CONFIG, None)
    path = Path(secrets).resolve() if secrets else (
        Path("/etc/alpha") if system else Path.home() / ".config/alpha") / f"{name}.env"
    _refuse_readable(path)
    runtime = Path("/run" if system else environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    inside = config.run_dir.is_relative_to(runtime)
    writable = [str(config.state_dir), tempfile.gettempdir(), str(Path(compiled.numba.config.CACHE_DIR).parent)]
    if not inside and not config.run_dir.is_relative_to(tempfile.gettempdir()):
        writable.append(str(config.run_dir))
    asked = (config.market.ws_url, *(feed.ws_url for feed in config.feeds.values()))
    return Setting(
        instance=name, system=system, user=pwd.getpwuid(os.getuid()).pw_name, folder=str(Path(config.base).resolve()),
        environment=environment, secrets=str(path), writable=tuple(dict.fromkeys(writable)),
        run_dir=str(config.run_dir), runtime_folder=str(config.run_dir.relative_to(runtime)) if inside else "",
        network=not all("//127.0.0.1" in address for address in asked),
        cpu_only=set(config.inference.providers) == {"CPUExecutionProvider"}), left_out


def _refuse_readable(path: Path) -> None:
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:  # it is not there yet, or not for this user to see
        return
    if mode & 0o077:
        raise ResourceError("others can read the file with secrets", where=f"{path}: mode {mode:04o}",
                            remedy=f"chmod 600 {path}")


def write(folder: Path, made: dict[str, str], writable: list[Path]) -> None:
    """Each unit whole or not at all. systemd refuses to start what is to write to a folder that is not there."""
    try:
        for needed in writable:
            needed.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            draft = folder / f".{name}.{os.getpid()}.new"
            draft.write_text(text)
            draft.replace(folder / name)
    except OSError as error:
        raise ResourceError("cannot write the units", where=f"{folder}: {error.strerror}",
                            remedy="choose another folder with --out, or become who may write there") from None


def advice(config: Config, setting: Setting, left_out: tuple[str, ...]) -> list[str]:
    """What to look at before they are started."""
    lines = [f"{name} holds a secret and is not written: put it into {setting.secrets}" for name in left_out]
    if config.run_dir.is_relative_to("/tmp"):
        lines.append(f"the run folder is {config.run_dir}; systemd-tmpfiles removes what nobody touches in /tmp for "
                     "ten days, locks included: set instance.run_dir to a folder under "
                     + ("/run" if setting.system else "$XDG_RUNTIME_DIR"))
    return lines
