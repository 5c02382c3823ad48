"""Two answers for those who start, restart and route: does this process live, and may the pipeline be relied on? Pure.

    live     the loop of the process that is asked turns: if not, restart it
    ready    every stage that the configuration wants is ready; the book of every symbol that may be traded is valid
             and fresh; the executor is reconciled, armed and not halted: if not, look, and do not restart

Each answer lists its checks, with the value that was found and the limit that it met.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from common.config import Config

if TYPE_CHECKING:
    from common.overview import BookState, StageState

TURN_LIMIT_S = 5.0  #: a loop that has not turned for so long hangs


class Check(NamedTuple):
    """One thing that was looked at. `value` and `limit` are numbers or words, None where there are none."""

    name: str
    ok: bool
    value: Any = None
    limit: Any = None
    why: str = ""  #: in words, where it is not ok


@dataclass(frozen=True)
class Health:
    """The answer: ok if every check is."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why not; empty where it is ok."""
        return [f"{check.name}: {check.why}" for check in self.checks if not check.ok]

    @property
    def status(self) -> int:
        """Of an answer over HTTP."""
        return 200 if self.ok else 503

    def body(self) -> bytes:
        """As JSON: `ok`, `reasons`, and of each check its name, verdict, value, limit and why."""
        return json.dumps({"ok": self.ok, "reasons": self.reasons,
                           "checks": [check._asdict() for check in self.checks]}, indent=1).encode() + b"\n"


def live(turn_age_s: float, limit_s: float = TURN_LIMIT_S) -> Health:
    """Of this process alone; `turn_age_s`: since its loop last turned."""
    return Health((_within("loop", turn_age_s, limit_s, "has not turned for {:.1f} s"),))


def ready(config: Config, states: "Mapping[str, StageState]", tops: "Mapping[str, BookState]",
          executor: Mapping[str, int]) -> Health:
    """Of the whole pipeline. `states`, `tops` and `executor` are what `Overview.states`, `Overview.tops` and
    `Overview.values("executor")` tell."""
    checks = [_stage(name, states.get(name)) for name in expected(config)]
    limit_s = config.risk.max_book_age_ms / 1000
    for symbol in traded(config):
        checks.append(_book(symbol, tops.get(symbol), limit_s))
    for name, wanted, why in (("halted", 0, "nothing may trade until `alpha resume`"),
                              ("armed", 1, "a live venue: `alpha arm` lets it trade"),
                              ("reconciled", 1, "positions have not been compared with the venue's")):
        found = executor.get(name)
        checks.append(Check(f"executor {name}", found == wanted, found, wanted,
                            "" if found == wanted else why if found is not None else "the executor never came"))
    return Health(tuple(checks))


def expected(config: Config) -> tuple[str, ...]:
    """The stages without which nothing is decided, in the order of a tick. The loopback exchange is one of them where
    something of ours is configured to go there; the monitor is none."""
    here = {(config.exchange.host, config.exchange.port), ("localhost", config.exchange.port)}
    addresses = [feed.ws_url for feed in (config.market, *config.feeds.values())]
    if config.executor.gateway != "paper":
        addresses.append(config.executor.base_url)
    loopback = any((url.hostname, url.port) in here for url in map(urlsplit, addresses))
    ingests = sorted({feed.process for feed in (config.market, *config.feeds.values())})
    return (*(["exchange"] if loopback else []), *(f"ingest-{number}" if number else "ingest" for number in ingests),
            "feature", *(f"inference-{worker}" for worker in range(config.inference.workers)), "executor")


def traded(config: Config) -> tuple[str, ...]:
    """The symbols that orders may be sent for: those of the venue that orders go to (a paper book knows all), less
    what `risk.allow` and `risk.block` keep out."""
    symbols: Sequence[str] = config.symbols if config.executor.gateway == "paper" else config.market.symbols
    allow, block = config.risk.allow, config.risk.block
    return tuple(symbol for symbol in symbols if symbol not in block and (not allow or symbol in allow))


def _stage(name: str, state: "StageState | None") -> Check:
    if state is None:
        return Check(f"stage {name}", False, "absent", "ready", "it was not started, or was stopped")
    value = "ready" if state.ready else "not ready"
    why = "" if state.ready else (f"waits for {state.waiting_for}" if state.waiting_for
                                  else f"last sign of life {state.age_s:.1f} s ago")
    return Check(f"stage {name}", state.ready, value, "ready", why)


def _book(symbol: str, top: "BookState | None", limit_s: float) -> Check:
    name = f"book {symbol}"
    if top is None or top.age_s is None:
        return Check(name, False, None, limit_s, "no tick yet")
    if not top.valid:
        return Check(name, False, round(top.age_s, 3), limit_s, "not valid: it is being synchronised with the venue")
    return _within(name, top.age_s, limit_s, "nothing has changed it for {:.1f} s")


def _within(name: str, value: float, limit: float, why: str) -> Check:
    ok = value <= limit
    return Check(name, ok, round(value, 3), limit, "" if ok else why.format(value))
