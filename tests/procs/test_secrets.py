"""No secret anywhere: a pipeline with keys in its environment, whatever happens to it, leaves none of them in what it
writes, shows, mirrors or shares. The one place where they must be is the environment of its processes, which the same
user alone may read.
"""

import base64
import os
import re
import signal
import stat
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from common import shm
from common.links import TAPS, Network
from procs.cli import main
from tests.pipeline import ROOT, Pipeline
from tests.waiting import until

#: Each repeats a motif of six, so any twelve characters of it in a row have the motif in them, turned or not.
MOTIFS = {"ALPHA_BOT_KEY": "q7+Z/v", "ALPHA_BINANCE_KEY": "J9/w+K", "ALPHA_BINANCE_SECRET": "x4+N/h",
          "ALPHA_PROXY_AUTH": "m3/Y+d"}
SECRETS = {name: motif * 8 for name, motif in MOTIFS.items()}
USDT = '["BTCUSDT","ETHUSDT"]'
VENUES = {
    "vectrade": {},
    "binance-usdm": {"ALPHA_MARKET__VENUE": "binance-usdm", "ALPHA_MARKET__SYMBOLS": USDT},
    "binance-spot": {"ALPHA_MARKET__VENUE": "binance-spot", "ALPHA_MARKET__SYMBOLS": USDT},
}

#: What befalls the processes, by their own hands: the exchange refuses orders, and answers with all that it was sent,
#: as a careless venue might; the executor crashes once, with a traceback that goes through its gateway.
_CUSTOMIZED = '''
import importlib, os, sys

def http(found, seen=[0]):
    def answer(self, call):
        if call.method == "POST" and "order" in call.path:
            seen[0] += 1
            echo = " ".join([*call.headers.values(), call.target])
            told = {"error": {"code": "FAULT", "message": echo}, "code": -1002, "msg": echo}
            if seen[0] in (1, 3, 4):
                return call.answer({1: 401}.get(seen[0], 500), echo.encode() if seen[0] == 4 else told)
        return found(self, call)
    return answer

def submit(found, seen=[0]):
    def crash(self, *arguments):
        seen[0] += 1
        if seen[0] == 4 and not os.path.exists(os.environ["CRASHED"]):
            open(os.environ["CRASHED"], "w").close()
            raise RuntimeError("a crash in the middle of an order")
        return found(self, *arguments)
    return crash

if "executor" in sys.orig_argv:
    for module, kind in (("vectrade", "VecTrade"), ("binance", "Binance")):
        owner = getattr(importlib.import_module(f"common.gateways.{module}"), kind)
        owner.submit = submit(owner.submit)
elif "exchange" in sys.orig_argv:
    for module, kind in (("binance_orders", "SyntheticBinance"), ("vectrade", "Synthetic")):
        owner = getattr(importlib.import_module(f"common.loopback.{module}"), kind)
        owner.http = http(owner.http)
'''


def forms(motif: str) -> set[bytes]:
    """What a run of the motif looks like in the ways in which text is written down; turned around, too."""
    found = set()
    for text in (motif, motif[::-1]):
        turns = {text[i:] + text[:i] for i in range(3)}  # to the groups of three that base64 has
        run = (text * 8).encode()
        found |= {text.encode(), quote(text, safe="").encode(), quote(text, safe="").lower().encode()}
        # A whole period of the coded run, as it is found somewhere in any twelve characters.
        found |= {base64.b64encode(turn.encode() * 8)[:8] for turn in turns}
        found |= {base64.urlsafe_b64encode(turn.encode() * 8)[:8] for turn in turns}
        found |= {run.hex()[:12].encode(), run.hex()[:12].upper().encode()}
        found.add(text.replace("/", "\\/").encode())
    return found


FORMS = {name: forms(motif) for name, motif in MOTIFS.items()}


def leaks(data: bytes) -> list[str]:
    """The secrets that are in `data` in one form or another."""
    text = b"\n".join(re.findall(rb"[!-~]{6,}", data))  # every form is one word of it; the rest are numbers
    return [name for name, found in FORMS.items() if any(form in text for form in found)]


@pytest.mark.parametrize("written", [
    lambda secret: secret, lambda secret: secret[7:19], lambda secret: secret[::-1][5:17],
    lambda secret: quote(secret, safe=""), lambda secret: secret.encode().hex(),
    lambda secret: base64.b64encode(f":{secret}".encode()).decode(),
    lambda secret: base64.urlsafe_b64encode(f"user:{secret[3:]}".encode()).decode(),
    lambda secret: repr({"X-Bot-Key": secret}), lambda secret: secret.replace("/", "\\/"),
])
@pytest.mark.parametrize("name", SECRETS)
def test_the_search_finds_a_secret_however_it_is_written(name, written):
    text = f"2026-12-01 INFO executor {written(SECRETS[name])} and more"
    assert leaks(text.encode("latin-1")) == [name]
    assert leaks(b"nothing that matters, " + os.urandom(100_000)) == []


class Listener(threading.Thread):
    """Everything that every tap mirrors."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(daemon=True)
        self.heard = {link: bytearray() for link in TAPS}
        self._network, self._over = Network(run_dir), threading.Event()

    def run(self) -> None:
        listeners = {link: self._network.listen(link) for link in TAPS}
        while not self._over.is_set():
            for link, listener in listeners.items():
                listener.discover()
                while (message := listener.recv(1)) is not None:
                    self.heard[link] += message
        for listener in listeners.values():
            listener.close()
        self._network.close()

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.kill
@pytest.mark.parametrize("venue", VENUES)
def test_no_secret_is_written_shown_mirrored_or_shared(venue, instance, tmp_path, run_dir, monkeypatch):
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "sitecustomize.py").write_text(_CUSTOMIZED)
    pipeline = Pipeline(instance, tmp_path, run_dir, "--rate", "400", **SECRETS, **VENUES[venue], **{
        "PYTHONPATH": f"{tmp_path / 'custom'}{os.pathsep}{ROOT}", "OPENBLAS_NUM_THREADS": "1",
        "CRASHED": str(tmp_path / "crashed"), "ALPHA_LOG__LEVEL": "debug", "ALPHA_INFERENCE__WORKERS": "1",
        "ALPHA_EXECUTOR__GATEWAY": venue, "ALPHA_EXECUTOR__TIMEOUT_S": "0.5", "ALPHA_DECISION__THRESHOLD": "0.001",
        "ALPHA_RISK__SYMBOL_COOLDOWN_MS": "20"})
    shown: dict[str, bytes] = {}
    try:
        until(lambda: list(run_dir.glob("tap.*")), 60, "a tap")
        listener = Listener(run_dir)
        listener.start()
        pipeline.until_count("executor", "starts", 2)  # it has crashed
        pipeline.until_count("executor", "fills", 1)
        exchange = pipeline.overview.stages["exchange"]
        os.kill(exchange.get("pid"), signal.SIGKILL)
        starts, orders = exchange.get("starts"), pipeline.count("executor", "orders")
        until(lambda: pipeline.count("exchange", "starts") > starts, 30, "another exchange")
        pipeline.until_count("executor", "orders", orders + 1)
        for counter in ("rejects", "unknowns"):  # the first order of an exchange is refused, the third has no answer
            pipeline.until_count("executor", counter, 1)
        for name, value in pipeline.env.items():
            monkeypatch.setenv(name, value)
        for words in ("config", "config --json", "status --json", "explain last", "explain last --json",
                      "orders --all --json", "position --json", "daily --json", "capture --help"):
            result = CliRunner().invoke(main, words.split())
            assert result.exit_code == 0, (words, result.output)
            shown[f"alpha {words}"] = result.output.encode()
        assert b"FAULT" in shown["alpha orders --all --json"] or b"-1002" in shown["alpha orders --all --json"]
        for pid in {pipeline.process.pid, *(stage.get("pid") for stage in pipeline.overview.stages.values())}:
            process = Path(f"/proc/{pid}")
            shown[f"ps: {pid}"] = (process / "cmdline").read_bytes()
            environ = process / "environ"
            assert SECRETS["ALPHA_BOT_KEY"].encode() in environ.read_bytes()  # where they must be,
            assert stat.S_IMODE(environ.stat().st_mode) == 0o400 and environ.stat().st_uid == os.getuid()  # and who may
        for block in shm.SHM_DIR.glob(shm.block_name(instance, "*")):
            shown[str(block)] = block.read_bytes()
        listener.end()
        for link, data in listener.heard.items():
            assert data, f"nothing was heard on {link}"
            shown[f"tap {link}"] = bytes(data)
        for file in run_dir.rglob("*"):
            if file.is_file():
                shown[str(file)] = file.read_bytes()
        assert any(name.endswith("executor.config.json") for name in shown)
        assert any(name.endswith("supervisord.conf") for name in shown)
        shown["alpha run"] = pipeline.said().encode()
    finally:
        pipeline.close()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            shown[str(file)] = file.read_bytes()
    said = (tmp_path / "log" / "executor.log").read_text()
    assert "a crash in the middle of an order" in said and "Traceback" in said
    assert any(name.endswith("journal.db") for name in shown) and any(name.endswith("exchange.jsonl") for name in shown)
    assert {name: found for name, data in shown.items() if (found := leaks(data))} == {}
