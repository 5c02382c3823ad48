"""A real HTTP server that receives alerts: what was posted, and the status that each is answered with."""

import json
import ssl
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebhookServer:
    """`statuses` are given in their order, then 204; 0 answers nothing for a minute."""

    def __init__(self, statuses: tuple[int, ...] = (), context: ssl.SSLContext | None = None) -> None:
        self.received: list[dict] = []
        self.paths: list[str] = []
        self._statuses, self._release = deque(statuses), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                status = server._statuses.popleft() if server._statuses else 204
                server.paths.append(self.path)
                if status == 0:
                    server._release.wait(60)
                    return
                if 200 <= status < 300:
                    server.received.append(json.loads(content))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/hook?token=s3cret-token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "WebhookServer":
        return self

    def __exit__(self, *error) -> None:
        self.close()


def collector(folder) -> tuple[list[str], "object"]:
    """A command that appends its standard input to a file, and the file."""
    script, target = folder / "tell.sh", folder / "told.jsonl"
    script.write_text(f'#!/bin/sh\ncat >> "{target}"\necho >> "{target}"\n')
    script.chmod(0o700)
    return [str(script)], target


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


