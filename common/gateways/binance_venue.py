"""The two markets of Binance that orders go to: their paths and words, their addresses, and the keys for them.

The keys are read from $ALPHA_BINANCE_KEY and $ALPHA_BINANCE_SECRET, and are never put into an error or a log.
"""

from collections.abc import Mapping
from typing import NamedTuple

from common.config import SPOT_GATEWAY
from common.errors import ConfigError
from common.gateways import is_loopback
from common.http import address
from common.signing import Credentials

ENV_KEY, ENV_SECRET = "ALPHA_BINANCE_KEY", "ALPHA_BINANCE_SECRET"
LOOPBACK_KEY = "loopback"  #: key and secret that a loopback exchange expects where none is set


class Venue(NamedTuple):
    """What differs between the two."""

    name: str
    rest: str  #: of all paths, but those that have a version of their own
    trades: str
    account: str
    countdown: str  #: "": there is no dead man's timer
    listen_key: str  #: "": the stream is subscribed to by a signed request
    event: str  #: of the stream, when something happens to an order
    order: str  #: field of the event that holds the order; "": it is the event
    streams: Mapping[str, str]  #: REST host -> where its user streams are
    loopback: str  #: path of them at a loopback exchange
    fee_bps: int  #: standard rate of a taker
    post_only: Mapping[str, str]  #: parameters of a post-only limit order
    response: str  #: newOrderRespType that tells most


USDM = Venue(
    "binance-usdm", "/fapi/v1", "/fapi/v1/userTrades", "/fapi/v3/positionRisk",
    "/fapi/v1/countdownCancelAll", "/fapi/v1/listenKey",
    "ORDER_TRADE_UPDATE", "o",
    {"fapi.binance.com": "wss://fstream.binance.com/private",
     "testnet.binancefuture.com": "wss://fstream.binancefuture.com/private",
     "demo-fapi.binance.com": "wss://fstream.binancefuture.com/private"},
    "/private", 5, {"type": "LIMIT", "timeInForce": "GTX"}, "RESULT")
SPOT = Venue(
    SPOT_GATEWAY, "/api/v3", "/api/v3/myTrades", "/api/v3/account", "", "", "executionReport", "",
    {"api.binance.com": "wss://ws-api.binance.com:443/ws-api/v3",
     "testnet.binance.vision": "wss://ws-api.testnet.binance.vision/ws-api/v3",
     "demo-api.binance.com": "wss://demo-ws-api.binance.com/ws-api/v3"},
    "/ws-api/v3", 10, {"type": "LIMIT_MAKER"}, "FULL")
VENUES = {venue.name: venue for venue in (USDM, SPOT)}
QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "EUR", "TRY", "BTC", "ETH", "BNB")  #: most names of symbols end with one


def assets(symbol: str) -> tuple[str, str]:
    """Base and quote of a name, as far as it shows them: "" twice where it does not end with a well-known asset."""
    quote = next((quote for quote in QUOTES if symbol.endswith(quote) and symbol != quote), "")
    return (symbol.removesuffix(quote), quote) if quote else ("", "")


def stream_url(venue: Venue, base_url: str) -> str:
    """Where the user streams of the REST API at `base_url` are; beside it, at a loopback exchange."""
    parts = address(base_url)
    if is_loopback(parts.hostname or ""):
        return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{venue.loopback}"
    try:
        return venue.streams[parts.hostname or ""]
    except KeyError:
        raise ConfigError(f"this is no address of {venue.name}", where=f"executor.base_url={parts.hostname}",
                          remedy=f"known are {', '.join(f'https://{host}' for host in venue.streams)}, and loopback "
                          "addresses") from None


def credentials(base_url: str, environ: Mapping[str, str]) -> Credentials:
    """From the environment; a loopback exchange has a default, any other host must be given both."""
    parts = address(base_url)
    local = is_loopback(parts.hostname or "")
    if parts.scheme != "https" and not local:
        raise ConfigError("the key of the order gateway would travel in clear", where=f"host={parts.hostname}",
                          remedy="use an https:// address")
    given = []
    for name in (ENV_KEY, ENV_SECRET):
        value = environ.get(name, "") or (LOOPBACK_KEY if local else "")
        if not value:
            raise ConfigError("no key for the order gateway", where=f"host={parts.hostname}",
                              remedy=f"set {ENV_KEY} and {ENV_SECRET} in the environment")
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ConfigError("the key for the order gateway has characters that no key has", where=name,
                              remedy="set it without spaces or line ends")
        given.append(value)
    return Credentials(*given)
