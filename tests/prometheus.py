"""A real Prometheus, where one is installed: scrapes our exposition with our own configuration and rules."""

import json
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from common.watch import metrics
from tests.waiting import until


def promtool() -> str | None:
    """Prometheus' own tool, where it is installed."""
    return shutil.which("promtool")


def installed() -> bool:
    return shutil.which("prometheus") is not None


class Prometheus:
    """Scrapes `expose(accept)`, which is served meanwhile, every second; `configuration(target)` and `rules` are what
    `alpha metrics` prints. A context manager."""

    def __init__(self, folder: Path, port: int, expose: Callable[[str], bytes], configuration: Callable[[str], str],
                 rules: str) -> None:
        self._address = f"127.0.0.1:{port}"
        self.asked: list[str] = []  #: the Accept header of each scrape
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                accept = self.headers.get("Accept", "")
                asked.append(accept)
                body = expose(accept)
                self.send_response(200)
                self.send_header("Content-Type", metrics.content_type(accept))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        text = configuration(f"127.0.0.1:{self._server.server_port}").replace("scrape_interval: 5s",
                                                                             "scrape_interval: 1s")
        folder.mkdir()
        (folder / "alpha-rules.yaml").write_text(rules)
        (folder / "prometheus.yml").write_text(f"global: {{evaluation_interval: 1s}}\n{text}")
        self._folder = folder

    def __enter__(self) -> "Prometheus":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._log = (self._folder / "log").open("w")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={self._folder / 'prometheus.yml'}", f"--web.listen-address={self._address}",
             f"--storage.tsdb.path={self._folder / 'data'}"], stdout=self._log, stderr=self._log)
        try:
            until(lambda: len(self.asked) >= 4, 60, "four scrapes")
            until(lambda: self.query("up")[0]["value"][1] == "1", 30, "a scrape that Prometheus could read")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        self._server.shutdown()
        self._server.server_close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """[{"metric": labels, "value": [time, text]}]; an expression that is wrong is an error."""
        return self._get(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> dict[str, Any]:
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]
