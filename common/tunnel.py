"""The way through an HTTP proxy: CONNECT, as bytes in and bytes out (RFC 9110, section 9.3.6).

A proxy is used only where the configuration names one; nothing is read from the environment. Its user and password, if
it wants any, stand in the environment as $ALPHA_PROXY_AUTH ("user:password"), never in a file.
"""

import base64
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from common.errors import ConfigError

HEAD_MAX = 16384  #: bytes of the proxy's answer


class Proxy(NamedTuple):
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "Proxy | None":
        """`http://host:port`, or None for "". Raises ConfigError on anything else."""
        if not url:
            return None
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme != "http" or not parts.hostname or not port or parts.username or parts.path.strip("/"):
            raise ConfigError("a proxy is not usable", where=f"proxy={url.rpartition('@')[2]}",
                              remedy="write http://host:port; user and password belong into $ALPHA_PROXY_AUTH")
        return cls(parts.hostname, port)


def proxy_auth(environ: Mapping[str, str] = os.environ) -> str:
    """"user:password" for the proxy, or ""."""
    return environ.get("ALPHA_PROXY_AUTH", "")


class Tunnel:
    """One CONNECT: send `request`, give what comes to `receive` until `open`."""

    def __init__(self, host: str, port: int, auth: str = "") -> None:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        more = f"Proxy-Authorization: Basic {base64.b64encode(auth.encode()).decode()}\r\n" if auth else ""
        self.request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n".encode()
        self.open = False
        self.error = ""  #: why there will be no tunnel
        self._head = bytearray()

    def receive(self, data: bytes) -> None:
        """Bytes of the proxy; b"" is the end. A proxy sends nothing behind its answer before the client does."""
        if not data:
            self.error = self.error or "the proxy closed the connection"
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > HEAD_MAX:
                self.error = "the proxy does not speak HTTP"
            return
        version, _, rest = bytes(self._head[:end]).split(b"\r\n")[0].partition(b" ")
        status = rest[:3]
        if not version.startswith(b"HTTP/1.") or not status.isdigit():
            self.error = "the proxy does not speak HTTP"
        elif status[:1] != b"2":
            self.error = f"the proxy refused with status {status.decode()}"
        elif end + 4 < len(self._head):
            self.error = "the proxy sent something behind its answer"
        else:
            self.open = True
