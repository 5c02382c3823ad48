"""Telling alerts: to real commands and a real server, past everything that may go wrong, and never waiting."""

import json
import os
import signal
import ssl
import subprocess
import threading

import pytest

from common import alert_sink
from common.alert_sink import Sink, by_command, by_webhook, configured, payload
from common.alerts import FIRING, WARNING, Alert
from common.config import Alerts, Config
from common.errors import ConfigError, ResourceError, VenueError
from tests.waiting import until
from tests.webhook_server import WebhookServer, collector, lines

ALERT = Alert("limit-near", "max_gross", FIRING, WARNING, 1_780_000_000_123_000_000, 1_780_000_001_000_000_000,
              "the gross is 90%", 90.0, 100.0, "alpha position")
CONTENT = payload(ALERT, "mine")


def test_an_alert_is_one_json_object():
    assert json.loads(CONTENT) == {
        "instance": "mine", "name": "limit-near", "subject": "max_gross", "state": "firing", "severity": "warning",
        "what": "the gross is 90%", "value": 90.0, "limit": 100.0, "remedy": "alpha position",
        "since": "2026-05-28T20:26:40.123Z", "at": "2026-05-28T20:26:41.000Z"}
    assert b"\n" not in CONTENT


def test_a_command_gets_it_on_its_standard_input_and_no_secrets(tmp_path):
    command, target = collector(tmp_path)
    script = tmp_path / "tell.sh"
    script.write_text(script.read_text() + f'env > "{tmp_path}/env"\n')
    by_command(tuple(command), 10.0, {**os.environ, "ALPHA_BOT_KEY": "hunter2", "KEPT": "kept"})(CONTENT)
    assert lines(target) == [json.loads(CONTENT)]
    environment = (tmp_path / "env").read_text()
    assert "KEPT=kept" in environment and "hunter2" not in environment


def test_arguments_are_never_read_by_a_shell(tmp_path):
    target = tmp_path / "x"
    by_command(("sh", "-c", f'cat > {target}; test "$1" = "\\$(id)"', "tell", "$(id)"), 10.0)(CONTENT)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("command, what", [
    (("/nowhere/at-all",), "cannot be started .*nowhere"), (("false",), "failed .*exit code 1"),
    (("sh", "-c", "echo broken pipe >&2; exit 3"), "exit code 3, 'broken pipe'"), (("true",), "")])
def test_a_command_that_fails_says_how(command, what):
    if what:
        with pytest.raises(ResourceError, match=what):
            by_command(command, 10.0)(CONTENT)
    else:
        by_command(command, 10.0)(CONTENT * 10_000)  # it does not read: that is its affair


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    with pytest.raises(ResourceError, match="does not end"):
        by_command(("sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"), 0.5)(CONTENT)
    pid = (tmp_path / "pid").read_text().strip()
    until(lambda: not os.path.exists(f"/proc/{pid}") or " Z " in open(f"/proc/{pid}/stat").read())


def test_a_webhook_gets_it_at_its_path():
    with WebhookServer() as server:
        by_webhook(server.url, 10.0)(CONTENT)
        assert server.received == [json.loads(CONTENT)] and server.paths == ["/hook?token=s3cret-token"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_named_without_its_address(status):
    with WebhookServer((status,)) as server, pytest.raises(VenueError, match=f"127.0.0.1: status {status}") as raised:
        by_webhook(server.url, 10.0)(CONTENT)
    assert "s3cret" not in str(raised.value) and server.paths == ["/hook?token=s3cret-token"]  # no redirect is followed


def test_a_webhook_that_cannot_be_reached_or_says_nothing_is_an_error_in_time():
    with WebhookServer((0,)) as server, pytest.raises(ResourceError, match="cannot be reached .*127.0.0.1"):
        by_webhook(server.url, 0.3)(CONTENT)
    with pytest.raises(ResourceError, match="refused") as raised:
        by_webhook(server.url, 5.0)(CONTENT)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("address, what", [
    ("hooks.example/x", "is none"), ("ftp://x.example/s3cret", "is none"), ("https://", "is none"),
    ("https://x:notaport/s3cret", "is none"), ("http://hooks.example/s3cret", "only encrypted .*hooks.example")])
def test_an_address_that_is_none_is_refused_without_being_told(address, what):
    with pytest.raises(ConfigError, match=what) as raised:
        by_webhook(address, 1.0)
    assert "s3cret" not in str(raised.value)


def test_tls_is_verified(tmp_path):
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-keyout", tmp_path / "key", "-out", tmp_path / "cert", "-days", "2",
                        "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the openssl command is needed to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with WebhookServer(context=context) as server:
        with pytest.raises(ResourceError, match="cannot be reached"):
            by_webhook(server.url, 10.0)(CONTENT)
        assert server.received == []
        by_webhook(server.url, 10.0, ssl.create_default_context(cafile=tmp_path / "cert"))(CONTENT)
        assert len(server.received) == 1


# ---- the queue and the thread

class Flaky:
    """Fails so many times, then takes everything."""

    def __init__(self, failures: int = 0, error: Exception = ResourceError("no")) -> None:
        self.failures, self.error, self.taken = failures, error, []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, content: bytes) -> None:
        self.gate.wait(60)
        if self.failures:
            self.failures -= 1
            raise self.error
        self.taken.append(content)


def sink(deliver, **more) -> Sink:
    return Sink("test", deliver, pause_s=(0.001, 0.002), **more)


@pytest.mark.parametrize("error", [ResourceError("no"), RuntimeError("a bug")])
def test_what_fails_is_tried_again_in_order(error):
    deliver = Flaky(3, error)
    one = sink(deliver)
    for k in range(3):
        one.put(b"%d" % k)
    assert one.wait(30)
    assert deliver.taken == [b"0", b"1", b"2"] and (one.sent, one.failed, one.retries, one.dropped) == (3, 0, 3, 0)


def test_what_fails_for_good_is_given_up_and_the_next_is_told(caplog):
    deliver = Flaky(3)
    one = sink(deliver, attempts=3)
    one.put(b"0")
    one.put(b"1")
    assert one.wait(30) and deliver.taken == [b"1"] and (one.sent, one.failed, one.retries) == (1, 1, 2)
    assert one.counts()["error"] == "no" and "given up after 3 attempts: no" in caplog.text


def test_who_tells_never_waits_and_what_is_too_much_is_counted(caplog):
    deliver = Flaky()
    deliver.gate.clear()
    one = sink(deliver, room=10)
    one.put(b"first")
    until(lambda: one._queue.empty(), what="the first is under way")
    for k in range(30):
        one.put(b"%d" % k)  # were it to wait, it would for a minute
    assert one.dropped == 20 and "10 wait for the test" in caplog.text
    deliver.gate.set()
    assert one.wait(30) and deliver.taken == [b"first", *(b"%d" % k for k in range(20, 30))]


def test_closing_leaves_behind_what_hangs():
    deliver = Flaky()
    deliver.gate.clear()
    one = sink(deliver)
    one.put(b"0")
    one.close(0.05)
    assert one.sent == 0
    deliver.gate.set()


def test_what_waits_is_tried_once_when_it_ends():
    deliver = Flaky(10**6)
    one = Sink("test", deliver, pause_s=(1000.0, 1000.0))
    one.put(b"0")
    until(lambda: one.retries == 1)
    one.put(b"1")
    one.close(30)
    assert one.wait(0) and one.failed == 2


def test_sinks_are_those_that_are_configured(tmp_path):
    command, _ = collector(tmp_path)
    config = Config(alerts=Alerts(command=tuple(command)))
    assert configured(Config(), {}) == []
    assert [one.name for one in configured(config, {alert_sink.ENV_WEBHOOK: "https://x.example/y"})] == [
        "command", "webhook"]
    with pytest.raises(ConfigError, match="ALPHA_ALERTS_WEBHOOK"):
        configured(config, {alert_sink.ENV_WEBHOOK: "nonsense"})


def test_what_a_command_leaves_behind_holds_nobody_up():
    deliver = by_command(("sh", "-c", "cat >/dev/null; setsid sleep 60 & echo $! >&2; exit 3"), 20.0, os.environ)
    with pytest.raises(ResourceError, match="exit code 3") as failed:
        deliver(b"{}")
    os.kill(int(str(failed.value).split("'")[1]), signal.SIGKILL)  # it was still there: nobody waited for it
