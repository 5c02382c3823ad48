"""The venues: are they there, is it they, what do they answer, and what time is it where they are."""

import base64
import email.utils
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from common import locks, venues
from common.config import Config
from common.doctor.check import Check, Finding, error, note, ok, warning
from common.doctor.patient import Patient
from common.errors import AlphaError
from common.gateways import is_loopback
from common.tunnel import Proxy, Tunnel, proxy_auth

_LIMIT_S = 3.0  # for each step
_DAYS = 14  # that a certificate should still be good for
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_REFUSED_MS, _NOTICED_MS = 1000.0, 100.0  # orders stamped so far ahead are refused; half a wide receive window

#: venue -> where it tells its time, the way to it in the answer, and how many of its units are a second
TIMES = {"binance-usdm": ("/fapi/v1/time", ("serverTime",), 1e3),
         "binance-coinm": ("/dapi/v1/time", ("serverTime",), 1e3),
         "binance-spot": ("/api/v3/time", ("serverTime",), 1e3),
         "bitget": ("/api/v2/public/time", ("data", "serverTime"), 1e3),
         "bitget-usdt-futures": ("/api/v2/public/time", ("data", "serverTime"), 1e3),
         "bybit-linear": ("/v5/market/time", ("result", "timeNano"), 1e9),
         "bybit-spot": ("/v5/market/time", ("result", "timeNano"), 1e9),
         "coinbase": ("/api/v3/brokerage/time", ("epochMillis",), 1e3),
         "deribit": ("/api/v2/public/get_time", ("result",), 1e3),
         "kraken": ("/0/public/Time", ("result", "unixtime"), 1),
         "kraken-v1": ("/0/public/Time", ("result", "unixtime"), 1),
         "kucoin": ("/api/v1/timestamp", ("data",), 1e3), "okx": ("/api/v5/public/time", ("data", 0, "ts"), 1e3)}


class Reached(NamedTuple):
    """One address, as far as it went."""

    key: str  #: of the configuration
    address: str  #: scheme, host and port
    here: bool  #: on this machine
    running: bool  #: the loopback exchange of this instance, which would answer
    step: str  #: the last one that was tried: "name", "connect", "proxy", "tls", "answer"
    problem: str  #: why it went no further; ""
    untrusted: bool  #: the certificate is not that of this host
    status: int  #: of HTTP; 0: none
    took_ms: float  #: of the answer alone
    days: float | None  #: that the certificate is still good for


class Time(NamedTuple):
    """The time of a venue against that of this machine, in milliseconds."""

    key: str
    ahead_ms: float  #: of the venue
    unsure_ms: float  #: either way: half of the round trip, and what the answer rounds to
    how: str
    problem: str
    here: bool  #: on this machine, where there need be nothing that tells a time


class Times(NamedTuple):
    found: list[Time]
    limit_ms: float  #: risk.max_clock_skew_ms; 0: none


def _addresses(config: Config) -> dict[str, tuple[str, str, str]]:
    """Key -> (address, path, proxy), each address once."""
    found: dict[str, tuple[str, str, str]] = {}
    feeds = {"market": config.market, **{f"feeds.{name}": feed for name, feed in config.feeds.items()}}
    for key, feed in feeds.items():
        venue = venues.create(feed.venue, feed.symbols)
        ws_url, rest_url = feed.ws_url or venue.ws_url, feed.rest_url or venue.rest_url
        if ws_url:  # else the venue tells it over HTTP
            found[f"{key}.ws_url"] = (ws_url, venue.path(), feed.proxy)
        if rest_url:
            found[f"{key}.rest_url"] = (rest_url, "/", feed.proxy)
    if config.executor.gateway != "paper":
        found["executor.base_url"] = (config.executor.base_url, "/", "")
    once: dict[tuple[str, str, str], str] = {}
    for key, address in found.items():
        once.setdefault(address, key)
    return {key: address for address, key in once.items()}


def look_venues(patient: Patient) -> list[Reached]:
    config = patient.config
    running = locks.holder(config.run_dir / "stage.exchange.lock") is not None
    return [_reach(key, *address, running, patient) for key, address in _addresses(config).items()]


def _reach(key: str, url: str, path: str, proxy: str, running: bool, patient: Patient) -> Reached:
    parts = urlsplit(url)
    here = is_loopback(parts.hostname or "")
    step, days, status, took, problem, untrusted = "name", None, 0, 0.0, "", False
    address = f"{parts.scheme}://{parts.hostname}:{_port(parts)}"
    connection: socket.socket | None = None
    try:
        via = Proxy.parse(proxy)
        host, port = via or (parts.hostname or "", _port(parts))
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        step = "connect"
        connection = _connect(found)
        if via:
            step = "proxy"
            _dig(connection, parts, proxy_auth(patient.environ))
        if parts.scheme in ("https", "wss"):
            step = "tls"
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
            until = ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"])
            days = (until - time.time()) / 86400
        step = "answer"
        start = time.monotonic()
        status, _, _ = _ask(connection, parts, path, upgrade=parts.scheme in ("ws", "wss"))
        took = 1e3 * (time.monotonic() - start)
    except (OSError, AlphaError, http.client.HTTPException) as caught:
        problem = str(caught) or type(caught).__name__
        untrusted = isinstance(caught, ssl.SSLCertVerificationError)
    finally:
        if connection is not None:
            connection.close()
    return Reached(key, address, here, running, step, problem, untrusted, status, took, days)


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme, 443)


def _connect(addresses: list[tuple]) -> socket.socket:
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(_LIMIT_S)
        try:
            connection.connect(address)
            return connection
        except OSError as caught:
            connection.close()
            problem = caught
    raise problem


def _dig(connection: socket.socket, parts: SplitResult, auth: str) -> None:
    tunnel = Tunnel(parts.hostname or "", _port(parts), auth)
    connection.sendall(tunnel.request)
    while not tunnel.open and not tunnel.error:
        tunnel.receive(connection.recv(4096))
    if tunnel.error:
        raise OSError(tunnel.error)


def _ask(connection: socket.socket, parts: SplitResult, path: str, upgrade: bool) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of one GET, or of the beginning of a WebSocket, which goes no further."""
    words = [f"GET {parts.path.rstrip('/')}{path} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}",
             "User-Agent: alpha-doctor"]
    if upgrade:
        key = base64.b64encode(os.urandom(16)).decode()
        words += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    else:
        words += ["Accept: application/json", "Connection: close"]
    connection.sendall(("\r\n".join(words) + "\r\n\r\n").encode())
    answer = http.client.HTTPResponse(connection, method="GET")
    answer.begin()
    body = b"" if answer.status == 101 else answer.read(65536)
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def judge_venues(found: list[Reached]) -> Iterator[Finding]:
    for one in found:
        words = f"{one.key} {one.address}"
        if one.step == "connect" and one.problem and one.here and not one.running:
            yield ok(f"{words}: nothing of this instance runs; alpha run starts the loopback exchange")
        elif one.problem:
            remedies = {"name": "check the name, /etc/resolv.conf and the network (getent hosts NAME)",
                        "connect": "check firewall and address; market.proxy where a proxy is the only way out",
                        "proxy": "check market.proxy and $ALPHA_PROXY_AUTH",
                        "tls": "check this machine's date and its ca-certificates; somebody may be in between",
                        "answer": "try again; the venue's status page"}
            yield error(f"{words}: {one.step} failed: {one.problem}", "it is not the venue that answers"
                        if one.untrusted else "no market data" if one.key.endswith("ws_url") else
                        "no snapshots and no orders", remedies[one.step])
        elif one.status in (401, 403, 451) and one.key.endswith("ws_url") or one.status == 451:
            yield error(f"{words}: status {one.status}", "the venue refuses this address, by its country or its rules",
                        "run it where the venue serves, or through market.proxy")
        elif one.status in (418, 429):
            yield error(f"{words}: status {one.status}", "the venue has had too many requests from this address",
                        "wait as long as its Retry-After says; fewer symbols, fewer instances")
        elif one.status >= 500:
            yield warning(f"{words}: status {one.status}", "the venue has trouble of its own", "see its status page")
        elif one.key.endswith("ws_url") and one.status != 101:
            yield error(f"{words}: no WebSocket there, status {one.status}", "no market data",
                        f"correct {one.key}")
        else:
            yield ok(f"{words}: answers in {one.took_ms:,.1f} ms"
                     + (f", certificate good for {one.days:,.0f} days" if one.days is not None else ""))
        if one.days is not None and one.days < _DAYS and not one.problem:
            yield warning(f"{words}: its certificate ends in {one.days:,.1f} days", "connections fail from then on",
                          "see to the certificate if the server is yours; else check this machine's date")


def look_times(patient: Patient) -> Times:
    config, found = patient.config, []
    for key, (url, _, proxy) in _addresses(config).items():
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            continue
        name = config.executor.gateway if key.startswith("executor") else (
            config.market if key.startswith("market") else config.feeds[key.split(".")[1]]).venue
        found.append(_time(key, parts, name, proxy, patient))
    return Times(found, config.risk.max_clock_skew_ms)


def _time(key: str, parts: SplitResult, venue: str, proxy: str, patient: Patient) -> Time:
    path, way, units = TIMES.get(venue, ("/", (), 1.0))
    connection, here = None, is_loopback(parts.hostname or "")
    try:
        via = Proxy.parse(proxy)
        host, port = via or (parts.hostname or "", _port(parts))
        connection = _connect(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        if via:
            _dig(connection, parts, proxy_auth(patient.environ))
        if parts.scheme == "https":
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
        before = time.time()
        status, headers, body = _ask(connection, parts, path, upgrade=False)
        after = time.time()
    except (OSError, AlphaError, http.client.HTTPException) as caught:
        return Time(key, 0.0, 0.0, path, str(caught) or type(caught).__name__, here)
    finally:
        if connection is not None:
            connection.close()
    middle, unsure = (before + after) / 2, 1e3 * (after - before) / 2
    told = _field(body, way) if way and status == 200 else None
    if told is not None:
        return Time(key, 1e3 * (told / units - middle), unsure + 1e3 / units, path, "", here)
    date = headers.get("date", "")
    try:
        # It is cut to the second: half of one more on average, and as unsure by as much.
        stamp = email.utils.parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return Time(key, 0.0, 0.0, "Date", f"status {status}, and it tells no time", here)
    stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
    return Time(key, 1e3 * ((stamp - datetime.fromtimestamp(0, UTC)).total_seconds() + 0.5 - middle), unsure + 500,
                "Date", "", here)


def _field(body: bytes, way: tuple[str | int, ...]) -> float | None:
    try:
        found = json.loads(body)
        for step in way:
            found = found[step]
        return float(found)
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def judge_times(found: Times) -> Iterator[Finding]:
    limit = found.limit_ms or _REFUSED_MS
    remedy = "chronyc makestep, or timedatectl set-ntp true; in a container or a virtual machine, on the host"
    for one in found.found:
        words = (f"{one.key}: this clock is {abs(one.ahead_ms):,.0f} ms (+-{one.unsure_ms:,.0f}) "
                 f"{'behind' if one.ahead_ms > 0 else 'ahead of'} the venue's ({one.how})")
        surely = abs(one.ahead_ms) - one.unsure_ms
        if one.problem and one.here:
            yield ok(f"{one.key}: this machine, which tells no time")
        elif one.problem:
            yield note(f"{one.key}: the venue's time is not known: {one.problem}", "this clock is not compared with it",
                       "see the check venue")
        elif surely > limit:
            yield error(words, "orders are refused for their time", remedy)
        elif surely > _NOTICED_MS:
            yield warning(words, "ages of data are wrong by as much, and orders may be refused", remedy)
        else:
            yield ok(words)
    if not found.found:
        yield ok("no venue to ask")


VENUES = Check("venue", "name, connection, certificate and answer of each address", look_venues, judge_venues,
               needs_config=True, network=True)
VENUE_TIMES = Check("venuetime", "this clock against the venue's", look_times, judge_times, needs_config=True,
                    network=True)
