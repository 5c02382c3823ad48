"""Where alerts go: to a command, and to a webhook. Each has a thread of its own and a queue with an end, so that who
tells never waits and never fails for it.

An attempt that fails is made again, with pauses that grow; after `ATTEMPTS` the alert is given up. All this is counted
and logged. Alerts of one sink arrive in the order in which they were told.

    command   gets one JSON object on its standard input, and must end with 0. It is started without a shell, and
              without the secrets that stand in this process's environment
    webhook   POST with the same object; 2xx is a success. The address is a secret ($ALPHA_ALERTS_WEBHOOK): logs name
              its host alone. https with a certificate that the system trusts; http only to this machine. No redirects
"""

import contextlib
import http.client
import json
import logging
import os
import queue
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from common.alerts import Alert
from common.backoff import Backoff
from common.config import Config
from common.errors import AlphaError, ConfigError, ResourceError, VenueError
from common.gateways import is_loopback
from common.log import SECRETS
from common.log_lines import utc

ENV_WEBHOOK = "ALPHA_ALERTS_WEBHOOK"
ATTEMPTS = 5
QUEUE = 100  #: alerts that wait for one sink; one more drops the oldest
_PAUSE_S = 1.0, 30.0
_LAST_S = 3.0  # for what waits when the process ends
_ANSWER = 4096  # bytes of it that are read
_log = logging.getLogger("monitor")

Deliver = Callable[[bytes], None]  #: raises AlphaError where it did not arrive


def payload(alert: Alert, instance: str) -> bytes:
    """One JSON object: the fields of the alert, `since` and `at` in UTC, and the instance."""
    told: dict[str, Any] = {"instance": instance, **alert._asdict()}
    told["since"], told["at"] = utc(told.pop("since_ns")), utc(told.pop("at_ns"))
    return json.dumps(told).encode()


def by_command(command: tuple[str, ...], timeout_s: float, environ: Mapping[str, str] = os.environ) -> Deliver:
    """Runs `command` for each alert; what hangs is ended, with all that it has started."""
    harmless = {name: value for name, value in environ.items() if name not in SECRETS}

    def deliver(content: bytes) -> None:
        # A file, no pipe: whoever the command leaves behind may hold that open for ever.
        with tempfile.TemporaryFile() as words:
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words,
                                           env=harmless, start_new_session=True)
            except OSError as error:
                raise ResourceError("the command for alerts cannot be started",
                                    where=f"{command[0]}: {error.strerror}") from None
            try:
                process.communicate(content, timeout_s)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise ResourceError("the command for alerts does not end",
                                    where=f"{command[0]}: {timeout_s:g} s") from None
            words.seek(max(0, words.seek(0, os.SEEK_END) - 1000))
            said = words.read()
        if process.returncode:
            raise ResourceError("the command for alerts failed", where=f"{command[0]}: exit code {process.returncode}, "
                                f"{said.decode(errors='replace').strip()[-200:]!r}")

    return deliver


def by_webhook(address: str, timeout_s: float, context: ssl.SSLContext | None = None) -> Deliver:
    """Posts each alert. Raises ConfigError for an address that is none, without telling it."""
    try:
        url = urlsplit(address)
        host, port = url.hostname or "", url.port
    except ValueError:
        host, port = "", None
    if not host or url.scheme not in ("https", "http"):
        raise ConfigError("the address for alerts is none", where=f"${ENV_WEBHOOK}", remedy="write https://host/path")
    if url.scheme == "http" and not is_loopback(host):
        raise ConfigError("alerts leave this machine only encrypted", where=f"${ENV_WEBHOOK}: host {host}",
                          remedy="write https://")
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    if url.scheme == "https":
        context = context or ssl.create_default_context()

    def deliver(content: bytes) -> None:
        connection = (http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context) if context
                      else http.client.HTTPConnection(host, port, timeout=timeout_s))
        try:
            connection.request("POST", path, content, {"Content-Type": "application/json",
                                                       "User-Agent": "predictive-alpha"})
            answer = connection.getresponse()
            answer.read(_ANSWER)
            status = answer.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Of the error its kind alone, and what the system calls it: an address may stand in its text.
            said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise ResourceError("the webhook for alerts cannot be reached", where=f"host {host}: {said}") from None
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise VenueError("the webhook for alerts refuses", where=f"host {host}: status {status}")

    return deliver


class Sink:
    """One place to tell, in a thread of its own. `put` never blocks."""

    def __init__(self, name: str, deliver: Deliver, attempts: int = ATTEMPTS, room: int = QUEUE,
                 pause_s: tuple[float, float] = _PAUSE_S) -> None:
        self.name, self._deliver, self._attempts, self._pause_s = name, deliver, attempts, pause_s
        self.sent = self.failed = self.dropped = self.retries = 0
        self.error = ""  #: of the last attempt that failed
        self._queue: queue.Queue[bytes] = queue.Queue(room)
        self._ending = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name=f"alerts-{name}", daemon=True)
        self._thread.start()

    def put(self, content: bytes) -> None:
        self._idle.clear()
        while True:
            try:
                return self._queue.put_nowait(content)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.dropped += 1
                    _log.error("an alert is dropped: %d wait for the %s", self._queue.maxsize, self.name)

    def wait(self, seconds: float) -> bool:
        """Whether all that was put has been sent or given up by then."""
        return self._idle.wait(seconds)

    def counts(self) -> dict[str, Any]:
        return {"sent": self.sent, "failed": self.failed, "dropped": self.dropped, "retries": self.retries,
                "error": self.error}

    def close(self, seconds: float = _LAST_S) -> None:
        """One attempt for each that waits; what takes longer is left behind with the thread."""
        self._ending.set()
        self.wait(seconds)

    def _run(self) -> None:
        # An alert is rare and short, and must arrive when all cores are busy, too: no longer only when one is idle.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        while True:
            content = self._queue.get()
            self._tell(content)
            if self._queue.empty():
                self._idle.set()

    def _tell(self, content: bytes) -> None:
        backoff = Backoff(*self._pause_s)
        for attempt in range(1, self._attempts + 1):
            try:
                self._deliver(content)
                self.sent += 1
                return
            except AlphaError as error:
                self.error = str(error)
            except Exception as error:  # of whatever kind: alerts end nothing
                self.error = type(error).__name__
                _log.exception("an alert was not told by %s", self.name)
            if attempt == self._attempts or self._ending.is_set():
                break
            self.retries += 1
            pause_s = backoff.failed()
            _log.warning("an alert was not told: %s; again in %.1f s", self.error, pause_s)
            self._ending.wait(pause_s)
        self.failed += 1
        _log.error("an alert is given up after %d attempt%s: %s", attempt, "" if attempt == 1 else "s", self.error)


def configured(config: Config, environ: Mapping[str, str] = os.environ) -> list[Sink]:
    """The sinks that the configuration and $ALPHA_ALERTS_WEBHOOK name. Raises ConfigError where that is no address."""
    settings, sinks = config.alerts, []
    deliver = by_webhook(environ[ENV_WEBHOOK], settings.timeout_s) if environ.get(ENV_WEBHOOK) else None
    if settings.command:
        sinks.append(Sink("command", by_command(settings.command, settings.timeout_s, environ)))
    if deliver is not None:
        sinks.append(Sink("webhook", deliver))
    return sinks
