"""run: everything under supervisord, one live line a second, a summary at the end.

Starts nothing that `supervisord -c supervisord.conf` would not; it renders that file with this run's
configuration, watches the stages' telemetry from outside, and stops supervisord when it is done.
"""

import contextlib
import ctypes
import json
import os
import platform
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path

import click

from common import shm
from common.captures import describe
from common.config import DEFAULT_FILE, ENV_CONFIG, Config, load
from common.errors import AlphaError, ConfigError, InstanceError, ResourceError
from common.locks import lock_file
from common.log_files import last_words, stage_of
from common.overview import Overview, words
from common.stage import exit_on_error, own_folder
from common.watch.access import ENV_TOKEN, Access, address, is_loopback

ROOT = Path(__file__).resolve().parent.parent
_START_LIMIT_S = 240.0
_USUAL_START_S = 6.0
_STOP_LIMIT_S = 90.0  # more than the stopwaitsecs of supervisord.conf together, since they stop in turn
_DYING_LIMIT_S = 5.0


class Duration(click.ParamType):
    """`90`, `90s`, `2m`, `1h`: seconds."""

    name = "duration"

    def convert(self, value, param, context) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a duration; write 90s, 2m or 1h", param, context)
        return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@click.command()
@click.option("--config", "path", help="Configuration file (default: $ALPHA_CONFIG, then ./alpha.toml).")
@click.option("--for", "seconds", type=Duration(),
              help="Stop so long after all is ready, for example 60s (default: on Ctrl-C).")
@click.option("--summary", type=click.Path(dir_okay=False, writable=True), help="Write the summary here, as JSON.")
@click.option("--capture", "captures", multiple=True, type=click.Path(exists=True, dir_okay=False),
              help="Serve this recording instead of the synthetic market; may be repeated, in order.")
@click.option("--speed", type=click.FloatRange(0), help="Of a recording: 1 as recorded, 0 as fast as it is read.")
@click.option("--workers", type=click.IntRange(1, 64), help="Inference workers.")
@click.option("--rate", type=click.FloatRange(1), help="Synthetic market: messages per second.")
@click.option("--seed", type=int, help="Synthetic market: seed.")
@click.option("--model", help="ONNX model to use.")
@click.option("--shadow", help="ONNX model that challenges it: predicts the same rows, is judged, and never traded.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON at the end.")
def run(path: str | None, seconds: float | None, summary: str | None, captures: tuple[str, ...], speed: float | None,
        workers: int | None, rate: float | None, seed: int | None, model: str | None, shadow: str | None,
        as_json: bool) -> None:
    """Start exchange, ingest, feature, workers, executor and monitor under supervisord, and show them running.

    Reads the configuration and supervisord.conf, which lists the stages. Writes logs into the state folder
    (.alpha/log), and what the stages write: journal, recordings of faults, judged predictions. Stops cleanly on Ctrl-C
    and on SIGTERM, and leaves nothing in shared memory.

    A page shows it all: http://127.0.0.1:8766/ unless monitor.host and monitor.port say otherwise. Its buttons take a
    token: $ALPHA_MONITOR_TOKEN, or one that is made up for this run and told once, with the address, where standard
    error is a terminal. It is kept nowhere else. The line is cut to the terminal, and names each stage that is not as
    it should be; `alpha restart` starts one again.

    \b
    Examples
      alpha run                                    the synthetic market, until Ctrl-C
      alpha run --for 60s --summary out.json
      alpha run --capture day1.gz --capture day2.gz --speed 10

    Exit codes: 0 a clean run, 1 errors were counted or shared memory was left, 2 the configuration is wrong, 3 the
    model does not fit, 5 a port is taken or a folder cannot be made, 6 this instance runs already.
    """
    with exit_on_error():
        overrides = _overrides(load(path).exchange.port, captures, speed, workers, rate, seed, model, shadow)
        environment = {**os.environ, **overrides}
        config = load(path, environment)
        Session(config, path, environment).go(seconds, summary, as_json)


def _overrides(port, captures, speed, workers, rate, seed, model, shadow=None) -> dict[str, str]:
    """The command line as environment, which every stage reads."""
    given = {"EXCHANGE__SPEED": speed, "INFERENCE__WORKERS": workers, "EXCHANGE__RATE": rate, "EXCHANGE__SEED": seed,
             "INFERENCE__MODEL": model and str(Path(model).resolve()),
             "INFERENCE__SHADOW": shadow and str(Path(shadow).resolve())}
    if captures:
        told = describe(captures)
        here = f"127.0.0.1:{port}"
        given |= {"MARKET__WS_URL": f"ws://{here}", "MARKET__REST_URL": f"http://{here}", "MARKET__LIVE": False,
                  "EXCHANGE__CAPTURES": json.dumps([str(Path(name).resolve()) for name in captures]),
                  "MARKET__VENUE": told.venue, "MARKET__SYMBOLS": json.dumps(list(told.symbols)),
                  # Prices of another day: a paper account of its own.
                  "EXECUTOR__GATEWAY": "paper", "EXECUTOR__JOURNAL": time.strftime("paper-%Y%m%dT%H%M%SZ.db",
                                                                                   time.gmtime())}
    return {f"ALPHA_{key}": json.dumps(value) if not isinstance(value, str) else value
            for key, value in given.items() if value is not None}


class Session:
    """One run, from checks to summary."""

    def __init__(self, config: Config, path: str | None, environment: dict[str, str]) -> None:
        self.config, self.environment = config, environment
        self._source = Path(path or environment.get(ENV_CONFIG) or DEFAULT_FILE).resolve()
        self.overview = Overview(config.instance.name)
        # Those on the way of a tick. The monitor comes when a core is idle, and nobody waits for it.
        self.stages = ["exchange", "ingest", *(f"ingest-{k}" for k in range(1, config.ingests)), "feature",
                       *(f"inference-{k}" for k in range(config.inference.workers)), "executor"]
        self._stopping = False
        self._lively = sys.stderr.isatty()
        self._page = config.monitor.enabled and config.monitor.page
        self._made = ""  # a token of this run's own
        self._control = config.run_dir / "supervisor.sock"

    def go(self, seconds: float | None, summary: str | None, as_json: bool) -> None:
        if summary:
            _refuse_unwritable(Path(summary))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        os.umask(0o077)
        for folder in (self.config.run_dir, self.config.state_dir / "log"):
            own_folder(folder)
        lock = lock_file(self.config.run_dir / "run.lock", f"instance {self.config.instance.name}")
        try:
            self._check()
            started = time.monotonic()
            check = self._check_model()
            supervisor = self._start()
            try:
                self._await_ready(supervisor, check)
                first_decision = self._show(started, seconds, supervisor)
            finally:
                check.kill()
                check.wait()
                left = self._end(supervisor)
            told = self._summary(started, first_decision, left)
        finally:
            os.close(lock)
        print(json.dumps(told, indent=1) if as_json else _text(told), flush=True)
        if summary:
            try:
                Path(summary).write_text(json.dumps(told, indent=1) + "\n")
            except OSError as error:  # since the start: a disk that is full
                raise ResourceError("the summary cannot be written", where=f"{summary}: {error.strerror}") from None
        if told["shm_leaked"] or (told["errors"] and not self._stopping):
            raise AlphaError("the run was not clean", where=f"errors={told['errors']}, shm_leaked={told['shm_leaked']}",
                             remedy=f"see {self.config.state_dir / 'log'}")

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _say(self, text: str, passing: bool = False) -> None:
        """A line of progress; a passing one is overwritten by the next where there is a terminal."""
        if self._lively:
            # A passing line that went on in the next one could not be overwritten.
            width = _width() if passing else 0
            text = f"{text[:width - 2]}…" if 0 < width <= len(text) else text
            sys.stderr.write(f"\r\033[K{text}" + ("" if passing else "\n"))
        elif not passing:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _check(self) -> None:
        """What would make a stage fail at its start is said here, once and plainly."""
        settings = self.config
        held = shm.held(settings.instance.name)
        if not held:
            swept = shm.sweep(settings.instance.name)
            if swept:
                self._say(f"removed {len(swept)} shared-memory blocks that a killed run had left")
        if held:
            raise InstanceError("a stage of this instance runs already", where=", ".join(held),
                                remedy="stop it, or choose another instance.name")
        _refuse_taken(settings.exchange.host, settings.exchange.port, "the port of the loopback exchange is taken",
                      "ALPHA_EXCHANGE__PORT with ALPHA_MARKET__WS_URL, ALPHA_MARKET__REST_URL and "
                      "ALPHA_EXECUTOR__BASE_URL")
        if self._page:
            host, port = settings.monitor.host, settings.monitor.port
            _refuse_taken(host, port, "the port of the monitor's page is taken", "ALPHA_MONITOR__PORT")
            if self._lively and is_loopback(host) and not self.environment.get(ENV_TOKEN):
                self._made = self.environment[ENV_TOKEN] = secrets.token_urlsafe(24)
            Access(host, self.environment.get(ENV_TOKEN, ""))  # what the monitor would refuse, it says here

    def _check_model(self) -> subprocess.Popen:
        """Begins to load the model in a process of its own, beside the stages that start: a wrong one is told in
        its own words."""
        return subprocess.Popen([sys.executable, "-m", "procs.cli", "inference", "--check"], cwd=ROOT, text=True,
                                env=self._stage_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    @staticmethod
    def _refuse_wrong_model(check: subprocess.Popen) -> None:
        if check.poll():
            error = AlphaError(check.stderr.read().strip().removeprefix("alpha: ") or "the model cannot be loaded")
            error.exit_code = check.returncode
            raise error

    def _stage_environment(self) -> dict[str, str]:
        environment = {**self.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        if self._source.exists():
            environment[ENV_CONFIG] = str(self._source)
        return environment

    def _start(self) -> subprocess.Popen:
        conf = self.config.run_dir / "supervisord.conf"
        conf.write_text(render((ROOT / "supervisord.conf").read_text(), self.config, self._source))

        def become_child() -> None:  # dies, and stops all, when this process is killed
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)

        # A session of its own: Ctrl-C is for this process, which then stops the stages in order.
        return subprocess.Popen([sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(conf)],
                                env=self._stage_environment(), cwd=self.config.base, start_new_session=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=become_child)

    def _await_ready(self, supervisor: subprocess.Popen, check: subprocess.Popen) -> None:
        limit, patient = time.monotonic() + _START_LIMIT_S, False
        while not self._stopping:
            self._refuse_wrong_model(check)
            if not self._lively and not patient and time.monotonic() > limit - _START_LIMIT_S + _USUAL_START_S:
                patient = True
                self._say("starting; the first start on a machine compiles, which takes a minute or so")
            self.overview.refresh()
            # An ingest that has no connection yet is there: it tries again for as long as it takes.
            waiting = [name for name in self.stages if not self.overview.started(name)]
            if not waiting:
                self._say(f"ready: {', '.join(self.stages)}")
                self._tell_address()
                return
            self._say("starting: " + ", ".join(f"{name} ({self._waits(name)})" for name in waiting), passing=True)
            failed = self._failed(waiting)
            if failed or supervisor.poll() is not None or time.monotonic() > limit:
                raise ResourceError(f"stage {failed or waiting[0]} does not start",
                                    where=self._last_words(failed or waiting[0]),
                                    remedy=f"alpha logs {failed or waiting[0]}")
            time.sleep(0.05)

    def _tell_address(self) -> None:
        """Where the page is, with the token that was made up; one that the user has set is not repeated."""
        if self._page:
            where = address(self.config.monitor.host, self.config.monitor.port)
            self._say(f"page: {where}{f'#token={self._made}' if self._made else ''}")

    def _waits(self, stage: str) -> str:
        telemetry = self.overview.stages.get(stage)
        return (telemetry.told().get("waiting_for") if telemetry else None) or "starting"

    def _failed(self, waiting: list[str]) -> str | None:
        """A stage that has ended by itself more than once before it was ready."""
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            for process in self._supervisor().getAllProcessInfo():
                stage = stage_of(Path(process["name"]))
                if stage in waiting and process["statename"] in ("BACKOFF", "FATAL"):
                    return stage
        return None

    def _supervisor(self):
        return supervisor_at(self._control)

    def _last_words(self, stage: str) -> str:
        with contextlib.suppress(OSError):
            return last_words(self.config.state_dir, stage) or "it left no word in its log"
        return "its log cannot be read"

    def _show(self, started: float, seconds: float | None, supervisor: subprocess.Popen) -> float | None:
        """A line a second until it is time to stop; returns the seconds to the first decision."""
        first_decision = None
        before, histograms, then = self.overview.numbers(), self.overview.histograms(), time.monotonic()
        end = time.monotonic() + seconds if seconds else None
        while not self._stopping and (end is None or time.monotonic() < end):
            left = time.monotonic() + (min(1.0, end - time.monotonic()) if end else 1.0)
            while not self._stopping and time.monotonic() < left:
                time.sleep(0.05)
                if first_decision is None and self.overview.get("executor", "decisions"):
                    first_decision = time.monotonic() - started
            self.overview.refresh()
            if supervisor.poll() is not None:
                raise ResourceError("supervisord has ended", where=f"exit code {supervisor.returncode}",
                                    remedy=f"see {self.config.state_dir / 'log' / 'supervisord.log'}")
            numbers, now = self.overview.numbers(), time.monotonic()
            self._say(_line(now - started, now - then, before, numbers, self.overview.latency_us(histograms),
                            self._troubles(), _width() if self._lively else 0))
            before, histograms, then = numbers, self.overview.histograms(), now
            if self.config.exchange.captures and self._capture_finished():
                self._say("the recording has been played to its end")
                break
        return first_decision

    def _troubles(self) -> list[str]:
        """Every stage that is not as it should be, and how it stands."""
        standings = [(name, self.overview.standing(name)) for name in (*self.stages, "monitor")]
        return [f"{name} {standing}" for name, standing in standings
                if standing != "ready" and (name, standing) != ("monitor", "absent")]

    def _capture_finished(self) -> bool:
        address = f"http://{self.config.exchange.host}:{self.config.exchange.port}/loopback/status"
        with contextlib.suppress(urllib.error.URLError, OSError, ValueError):
            with urllib.request.urlopen(address, timeout=1) as answer:
                return bool(json.load(answer)["finished"])
        return False

    def _end(self, supervisor: subprocess.Popen) -> list[str]:
        """Stops everything, however the run has gone; returns the blocks that a killed stage had left, now removed."""
        self._say("stopping", passing=True)
        supervisor.terminate()
        try:
            supervisor.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(supervisor.pid, signal.SIGKILL)
            supervisor.wait()
        self._say("stopped")
        # The stages of a supervisord that was killed die with it, but a moment later.
        name, limit = self.config.instance.name, time.monotonic() + _DYING_LIMIT_S
        while shm.held(name) and time.monotonic() < limit:
            time.sleep(0.02)
        return shm.sweep(name)

    def _summary(self, started: float, first_decision: float | None, left: list[str]) -> dict:
        return {"seconds": round(time.monotonic() - started, 3),
                "start_to_first_decision_s": first_decision and round(first_decision, 3),
                **self.overview.summary(), **self.overview.judged(), "shm_leaked": len(left), "leaked": left,
                "machine": {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
                            "system": platform.platform(), "processor": _processor()}}


def _refuse_unwritable(path: Path) -> None:
    """ConfigError where a file cannot be written there, before hours have gone into it."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError("the summary cannot be written", where=f"--summary {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError("the summary cannot be written", where=f"--summary {path}: permission denied")


def _refuse_taken(host: str, port: int, what: str, keys: str) -> None:
    """ResourceError where `port` cannot be had."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise ResourceError(what, where=f"{host}:{port}: {error.strerror}",
                            remedy=f"stop what listens there, or set {keys}") from None


def render(text: str, config: Config, source: Path) -> str:
    """supervisord.conf for this configuration: absolute paths, the numbers of processes, the sockets."""
    text = text.replace("%(here)s/.alpha/supervisor.sock", str(config.run_dir / "supervisor.sock"))
    text = text.replace("%(here)s/.alpha", str(config.state_dir))
    # Without a configuration file the stages have the defaults, as this process has.
    text = text.replace("%(here)s/alpha.toml", str(source) if source.exists() else "")
    for program, count in (("ingest", config.ingests), ("inference", config.inference.workers)):
        head, section, rest = text.partition(f"[program:{program}]\n")
        rest, found = re.subn(r"\A((?:(?!\[).*\n)*?)numprocs=\d+$", rf"\g<1>numprocs={count}", rest, flags=re.M)
        if found != 1:
            raise ConfigError("supervisord.conf has no numprocs line", where=f"program:{program}")
        text = head + section + rest
    if not config.monitor.enabled:
        text, found = re.subn(r"^(\[program:monitor\]\n(?:(?!\[).*\n)*?autostart=)true$", r"\1false", text, flags=re.M)
        if found != 1:
            raise ConfigError("supervisord.conf has no autostart line", where="program:monitor")
    return text.replace("%(here)s", str(ROOT))


#: what stays on a line that is narrow: the first that fit, in this order
_WORTH = ("time", "trouble", "ticks", "decisions", "pnl", "predictions", "latency", "position", "orders", "fills",
          "skips")


def _line(elapsed: float, interval: float, before: dict, now: dict, latency: dict, troubles: Sequence[str] = (),
          width: int = 0) -> str:
    """The live line, of fewer columns than `width`; 0: all of it. A latency that was not measured is `-`."""
    def rate(name: str) -> str:
        since = now[name] - before[name]
        return f"{(since if since >= 0 else now[name]) / interval:,.0f}/s"  # a stage that began anew counts from 0

    decided = latency.get("tick_to_decision") or {"count": 0}
    p50, p99 = (f"{decided[name]:,.0f} us" if decided["count"] else "-" for name in ("p50", "p99"))
    parts = {
        "time": f"{int(elapsed) // 60:02d}:{int(elapsed) % 60:02d}",
        "trouble": "  ".join([*(["HALTED"] if now["halted"] else []), *(one.upper() for one in troubles)]),
        "ticks": f"ticks {rate('ticks')}", "predictions": f"predictions {rate('predictions')}",
        "decisions": f"decisions {now['decisions']:,}", "orders": f"orders {now['orders']:,}",
        "fills": f"fills {now['fills']:,}", "position": f"position {now['position']:,.0f}",
        "pnl": f"pnl {now['pnl']:+,.2f}", "latency": f"tick-to-decision p50 {p50} p99 {p99}",
        "skips": f"skips {now['skipped']:,}"}
    parts = {name: part for name, part in parts.items() if part}
    kept, used = [], 0
    for name in _WORTH if width else ():
        if name in parts and used + len(parts[name]) < width:
            kept.append(name)
            used += len(parts[name]) + 2
        elif name == "trouble" and name in parts:  # more stages than there is room for
            kept.append(name)
            parts[name] = parts[name][:max(0, width - used - 2)] + "…"
            break
    return "  ".join(part for name, part in parts.items() if name in kept or not width)


def _width() -> int:
    """Columns of the terminal on standard error; 0 where it does not tell."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


def supervisor_at(control: Path) -> xmlrpc.client.ServerProxy:
    """What the supervisord that listens at this socket can be asked. Calls raise OSError or xmlrpc.client.Error."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{control}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def _text(told: dict) -> str:
    """The summary for people."""
    first = told["start_to_first_decision_s"]
    decided = "no decision" if first is None else f"first decision after {first:.1f} s"
    lines = [f"ran {told['seconds']:.1f} s, {decided}; "
             f"restarts {told['restarts']}, errors {told['errors']}, shared memory left {told['shm_leaked']}"]
    lines.append("  " + ", ".join(f"{name} {told[name]:,}" for name in (
        "frames", "ticks", "rows", "predictions", "skipped", "decisions", "orders", "fills", "gaps")))
    lines.append(f"  position {told['position']:,.2f}, pnl {told['pnl']:+,.2f} "
                 f"(realised {told['realised']:+,.2f}, unrealised {told['unrealised']:+,.2f}, "
                 f"fees {told['fees']:,.2f}), over the life of the journal")
    if told["refusals"]:
        lines.append("  refused: " + ", ".join(f"{reason} {count:,}" for reason, count in told["refusals"].items()))
    for station, measured in told["latency_us"].items():
        if measured["count"]:
            lines.append(f"  {station:<17} p50 {measured['p50']:>8,.0f} us  p99 {measured['p99']:>8,.0f} us  "
                         f"p99.9 {measured['p999']:>8,.0f} us  of {measured['count']:,}")
    lines += [f"  {line}" for line in words(told)]
    return "\n".join(lines)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
