"""Who may look at a running pipeline over HTTP, and who may act on it. Pure.

    bound to loopback     whoever is on this machine may look; to act takes the token
    bound beyond it       everything but the page's own files, which hold no data, takes the token; there must be one

A browser that is led astray is kept out of both: the Host header must name this machine (a name that somebody else
owns may be made to point here: DNS rebinding), and what opens a WebSocket must come from a page of ours (Origin: any
page may try to open one to any address). A request without an Origin comes from no page, and is none of ours either.

The token travels in `Authorization: Bearer TOKEN`; in a WebSocket, to which browsers let no page add such a header, as
the subprotocol `token.TOKEN`; and with each order to act, in the message. It is compared in constant time.
"""

import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

from common.errors import ConfigError

ENV_TOKEN = "ALPHA_MONITOR_TOKEN"  #: where the token is read from, and nowhere else
PROTOCOL = "alpha"  #: the subprotocol of our WebSocket
_TOKEN_PROTOCOL = "token."
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")


class Kind(Enum):
    """What is asked for."""

    PAGE = "page"  #: a file of ours
    DATA = "data"  #: figures, over GET
    SOCKET = "socket"  #: figures as they come, and to act


class Denied(NamedTuple):
    status: int
    why: str


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine and no other can reach it."""
    address = _address(host)
    return host.lower().rstrip(".") in _NAMES if address is None else address.is_loopback


def address(host: str, port: int) -> str:
    """The page of a server that is bound to them, as a browser on this machine finds it."""
    bound = _address(host)
    if bound is not None and bound.is_unspecified:  # that is every address, and none that can be gone to
        host = "127.0.0.1" if bound.version == 4 else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@dataclass(frozen=True)
class Access:
    """`host` is what the server is bound to, `token` "" where there is none."""

    host: str
    token: str = ""

    def __post_init__(self) -> None:
        """ConfigError for a token that is easy to guess or that no header can carry, and for none beyond loopback."""
        if self.token and not _TOKEN.fullmatch(self.token):
            raise ConfigError("the token of the monitor cannot be used",
                              where=f"${ENV_TOKEN}: {len(self.token)} characters",
                              remedy="use 16 to 128 of A-Z a-z 0-9 - and _, by chance: openssl rand -hex 32")
        if not self.token and not self.local:
            raise ConfigError("the page would be open to other machines", where=f"monitor.host={self.host!r}",
                              remedy=f"set ${ENV_TOKEN}, or bind to 127.0.0.1 and use a tunnel: ssh -L")

    @property
    def local(self) -> bool:
        return is_loopback(self.host)

    def check(self, kind: Kind, host: Sequence[str], origin: Sequence[str] = (), authorization: Sequence[str] = (),
              protocols: Sequence[str] = ()) -> Denied | None:
        """None if a request may pass. Headers as they came, each as often as it came; `protocols` is
        Sec-WebSocket-Protocol."""
        if len(host) != 1 or not self._ours(host[0]):
            return Denied(421, "this server does not go by that name: use the address that `alpha run` prints")
        if kind is Kind.SOCKET and (len(origin) != 1 or not self._same(origin[0], host[0])):
            return Denied(403, "only a page of this server may open a WebSocket here")
        if self.local or kind is Kind.PAGE:
            return None
        given = _bearer(authorization) if kind is Kind.DATA else _subprotocol(protocols)
        return None if self.knows(given) else Denied(401, "this takes the token")

    def knows(self, token: object) -> bool:
        """Whether it is the token. False where there is none."""
        return bool(self.token) and isinstance(token, str) and hmac.compare_digest(
            token.encode("utf-8", "replace"), self.token.encode())

    def _ours(self, header: str) -> bool:
        host = _split(header)
        if host is None:
            return False
        if is_loopback(host) or host.lower() == self.host.lower():
            return True
        bound = _address(self.host)
        # Bound to every address, it goes by each; an address, unlike a name, cannot be made to point elsewhere.
        return bound is not None and bound.is_unspecified and _address(host) is not None

    def _same(self, origin: str, header: str) -> bool:
        """Whether a page with that Origin was fetched from the host and port that this request names."""
        try:
            found = urlsplit(origin)
            port = found.port
        except ValueError:
            return False
        if found.scheme not in ("http", "https") or found.path or found.query or found.fragment or "@" in found.netloc:
            return False
        default = 80 if found.scheme == "http" else 443
        try:
            asked = urlsplit(f"//{header}")
            return (found.hostname, port or default) == (asked.hostname, asked.port or default)
        except ValueError:
            return False


def _split(header: str) -> str | None:
    """The host of a Host header, without brackets and port; None if it is none."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", header)
    return found[1].strip("[]") if found else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _bearer(headers: Sequence[str]) -> str | None:
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else None


def _subprotocol(headers: Sequence[str]) -> str | None:
    offered = [item.strip() for header in headers for item in header.split(",")]
    return next((item.removeprefix(_TOKEN_PROTOCOL) for item in offered if item.startswith(_TOKEN_PROTOCOL)), None)


#: sent with everything: nothing of elsewhere is loaded, run, or told; nobody frames us
SECURITY = {
    # The hash is that of nothing: the chart library makes an empty style element, and fills it by its own interface.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' "
                               "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; img-src 'self' data:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
