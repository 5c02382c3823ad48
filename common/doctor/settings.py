"""The configuration: does it load, is it sane for a live venue, is there a key where one is needed."""

import os
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from common import gateways, venues
from common.clock import SystemClock
from common.config import ENV_CONFIG, ENV_PREFIX, Config, Market
from common.doctor.check import Check, Finding, error, note, ok, refused, warning
from common.doctor.patient import PROXIES, Patient
from common.errors import AlphaError
from common.gateways import is_live, is_loopback
from common.log import SECRETS, SUPERVISED

#: names of the environment that somebody reads, beside ALPHA_SECTION__KEY
_READ = {ENV_CONFIG, SUPERVISED, "ALPHA_RECORDINGS", "ALPHA_HFTBACKTEST", *SECRETS}


class Settings(NamedTuple):
    source: str  #: "": none, defaults
    problem: AlphaError | None
    overrides: list[str]  #: names in the environment
    unread: list[str]  #: names in the environment that look like ours and mean nothing
    missing: dict[str, str]  #: key -> a path that is not there
    unknown: AlphaError | None  #: a venue that is not known
    orphans: list[str]  #: instruments of symbols that are not there
    defaulted: list[str]  #: symbols whose increments are the defaults


class Secrets(NamedTuple):
    gateway: str
    problem: AlphaError | None
    present: dict[str, bool]  #: name -> whether it is set
    in_urls: list[str]  #: keys of addresses with a password in them


def look_settings(patient: Patient) -> Settings:
    config, environ = patient.config, patient.environ
    overrides = sorted(name for name in environ if name.startswith(ENV_PREFIX) and "__" in name)
    unread = sorted(name for name in environ if name.startswith(ENV_PREFIX) and "__" not in name and name not in _READ)
    missing: dict[str, str] = {}
    unknown, orphans, defaulted = None, [], []
    if config is not None:
        paths = {"inference.shadow": (config.inference.shadow,), "exchange.captures": config.exchange.captures,
                 "inference.custom_ops": config.inference.custom_ops, "inference.model": (config.inference.model,)}
        missing = {key: str(config.path(name)) for key, names in paths.items() for name in names
                   if name and not os.path.exists(config.path(name))}
        try:
            for feed in (config.market, *config.feeds.values()):
                venues.create(feed.venue, feed.symbols)
        except AlphaError as problem:
            unknown = problem
        orphans = [name for name in config.instruments if name not in config.symbols]
        defaulted = [name for name in config.market.symbols if name not in config.instruments]
    return Settings(str(patient.source or ""), patient.problem, overrides, unread, missing, unknown, orphans, defaulted)


def judge_settings(found: Settings) -> Iterator[Finding]:
    wrong = bool(found.problem or found.unknown or found.missing)
    for problem in (found.problem, found.unknown):
        if problem is not None:
            yield refused(problem, "nothing starts with it", f"correct {found.source or 'the environment'}")
    for key, path in found.missing.items():
        yield error(f"{key}: there is no {path}", "a stage ends at its start; relative paths start at the "
                    "configuration file's folder", f"correct {key}")
    if found.unread:
        yield warning(f"in the environment, and read by nobody: {', '.join(found.unread)}",
                      "what they were to change is not changed",
                      "write ALPHA_SECTION__KEY, with two underscores; or unset")
    if found.overrides:
        yield note(f"overridden by the environment: {', '.join(found.overrides)}",
                   "a stage that is started in another terminal does not see it", "write what is to last into the file")
    if found.orphans:
        yield note(f"instruments that no feed has: {', '.join(found.orphans)}", "a name may be misspelt",
                   "correct or remove them")
    if not found.source:
        yield note("no configuration file: the defaults are in force", "a file in another folder is not found",
                   "alpha doctor --config FILE, or set ALPHA_CONFIG")
    elif not wrong:
        yield ok(f"{found.source} loads")


def _feeds(config: Config) -> dict[str, Market]:
    return {"market": config.market, **{f"feeds.{name}": feed for name, feed in config.feeds.items()}}


def look_live(patient: Patient) -> Config:
    return patient.config


def judge_live(config: Config) -> Iterator[Finding]:
    """Settings that fit together nowhere, and those that a real venue asks for."""
    wrong = False
    live = is_live(config)
    for key, feed in _feeds(config).items():
        away = [url for url in (feed.ws_url, feed.rest_url) if not is_loopback(urlsplit(url).hostname or "")]
        if away and not feed.live:
            wrong = True
            yield warning(f"{key}.live is false, and its addresses are not this machine's",
                          "reconnects come at the pace of the loopback exchange, and a venue bans for that",
                          f"{key}.live = true")
        for url in (feed.ws_url, feed.rest_url):
            if url.startswith(("ws://", "http://")) and not is_loopback(urlsplit(url).hostname or ""):
                wrong = True
                yield warning(f"{key}: {urlsplit(url).scheme}://{urlsplit(url).hostname} is not encrypted",
                              "who is on the way can make prices", "use wss:// and https://")
    settings, risk = config.executor, config.risk
    here = is_loopback(urlsplit(settings.base_url).hostname or "")
    if config.market.live and settings.gateway != "paper" and here:
        wrong = True
        yield warning(f"market is a live {config.market.venue}, orders go to {urlsplit(settings.base_url).netloc}",
                      "the books of that exchange are not those that the model sees",
                      'executor.gateway = "paper", or executor.base_url of the venue')
    if settings.gateway.startswith("binance") and settings.gateway != config.market.venue:
        wrong = True
        yield warning(f"executor.gateway is {settings.gateway}, market.venue {config.market.venue}",
                      "symbols and prices of one are not those of the other", f'market.venue = "{settings.gateway}"')
    if risk.max_order_notional > risk.max_position_notional:
        yield note(f"risk.max_order_notional {risk.max_order_notional:g} is above risk.max_position_notional "
                   f"{risk.max_position_notional:g}", "the first can never be reached", "lower it")
    if config.decision.order_notional > risk.max_order_notional:
        yield note(f"decision.order_notional {config.decision.order_notional:g} is above risk.max_order_notional "
                   f"{risk.max_order_notional:g}", "the most confident orders are refused", "lower it")
    if live and settings.gateway != "paper":
        names = [name for name in config.market.symbols if name not in config.instruments]
        if names:
            wrong = True
            yield warning(f"no tick and lot for {', '.join(names[:8])}", "prices off the venue's grid are rejected",
                          f'[instruments."{names[0]}"] tick, lot')
        advice = {"risk.max_drawdown": (risk.max_drawdown, "nothing halts a slow loss from the day's best"),
                  "risk.max_clock_skew_ms": (risk.max_clock_skew_ms, "a wrong clock is not noticed"),
                  "risk.max_net_notional": (risk.max_net_notional, "all symbols may lean one way")}
        for key, (value, why) in advice.items():
            if not value:
                yield note(f"{key} is not set", why, f"set {key}")
        if settings.durability != "power":
            yield note('executor.durability is "process"', "a power cut may take the last orders from the journal",
                       'executor.durability = "power"')
    if not wrong:
        yield ok(f"{'live' if live else 'loopback'}: feed {config.market.venue}, orders by {settings.gateway}")


def look_secrets(patient: Patient) -> Secrets:
    config, problem = patient.config, None
    try:
        gateways.create(config, SystemClock(), patient.environ).close()  # nothing is sent before it is asked to
    except AlphaError as error_:
        problem = error_
    urls = {f"{key}.{field}": getattr(feed, field) for key, feed in _feeds(config).items()
            for field in ("ws_url", "rest_url", "proxy")} | {"executor.base_url": config.executor.base_url}
    return Secrets(config.executor.gateway, problem, {name: bool(patient.environ.get(name)) for name in SECRETS},
                   [key for key, url in urls.items() if urlsplit(url).password or urlsplit(url).username])


def judge_secrets(found: Secrets) -> Iterator[Finding]:
    for key in found.in_urls:
        yield error(f"{key} has a name or a password in it",
                    "the file is read by more than the pipeline, and logs quote it",
                    "take it out; the environment is for secrets")
    if found.problem:
        yield refused(found.problem, "the executor ends at its start", "set the key in the environment")
    else:
        there = [name for name, set_ in found.present.items() if set_]
        yield ok(f"gateway {found.gateway} has what it needs; set: {', '.join(there) or 'none'}")


def look_proxies(patient: Patient) -> tuple[list[str], list[str]]:
    """(names in the environment, addresses that the configuration names), without what may be secret in either."""
    config = patient.config
    names = [name for name in (*PROXIES, *(name.lower() for name in PROXIES)) if patient.environ.get(name)]
    feeds = _feeds(config) if config else {}
    return names, [f"{key}.proxy" for key, feed in feeds.items() if feed.proxy]


def judge_proxies(found: tuple[list[str], list[str]]) -> Iterator[Finding]:
    names, configured = found
    if names and not configured:
        yield note(f"{', '.join(names)} in the environment", "the pipeline does not read them, and connects directly",
                   "market.proxy, where the venue is to be reached through a proxy")
    else:
        yield ok(f"through a proxy: {', '.join(configured)}" if configured else "no proxy")


SETTINGS = Check("config", "does the configuration load", look_settings, judge_settings)
LIVE = Check("live", "settings that must fit together", look_live, judge_live, needs_config=True)
SECRET = Check("secrets", "whether the keys are there that the gateway needs", look_secrets, judge_secrets,
               needs_config=True)
PROXY = Check("proxy", "proxies in the environment", look_proxies, judge_proxies)
