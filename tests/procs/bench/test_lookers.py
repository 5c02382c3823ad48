"""Who looks at the monitor for the bench: real tabs of a real browser, and a scraper beside them."""

import http.server
import json
import subprocess
import sys
import threading

import pytest

from procs.run import ROOT
from tests.browser import CHROMIUM
from tests.waiting import until


class Pages(http.server.ThreadingHTTPServer):
    """Answers everything, and keeps what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *arguments) -> None:
        pass


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
def test_each_tab_of_a_browser_opens_the_page_and_all_end_with_it():
    pages = Pages()
    threading.Thread(target=pages.serve_forever).start()
    lookers = subprocess.Popen([sys.executable, "-m", "procs.bench.lookers", str(pages.server_address[1]), "3",
                                str(CHROMIUM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert json.loads(lookers.stdout.readline()) == {"looking": 3}
        until(lambda: pages.asked.count("/") == 3 and "/metrics" in pages.asked, 60, "three tabs and a scrape")
        out = lookers.communicate("\n", timeout=60)[0]
        assert lookers.returncode == 0 and json.loads(out)["scrapes"] >= 1
    finally:
        lookers.kill()
        lookers.wait()
        pages.shutdown()
        pages.server_close()
