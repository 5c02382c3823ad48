"""The configuration: one frozen tree of dataclasses, whose defaults stand here and nowhere else.

Read from TOML, then from the environment: `ALPHA_SECTION__KEY=value` overrides `[section] key`, the value
being TOML (`ALPHA_INFERENCE__WORKERS=3`) or, where it does not parse as TOML, plain text. Unknown sections
and keys are refused. Secrets are not configuration: they are read from the environment where they are used
and are never written anywhere.
"""

import dataclasses
import json
import math
import os
import re
import tempfile
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from common import fixed
from common.errors import ConfigError, VenueError

ENV_PREFIX = "ALPHA_"
ENV_CONFIG = "ALPHA_CONFIG"  #: path of the configuration file, for processes that are started by others
ENV_BOT_KEY = "ALPHA_BOT_KEY"  #: the secret sent as X-Bot-Key
DEFAULT_FILE = "alpha.toml"
SPOT_GATEWAY = "binance-spot"  #: where nothing can be sold that is not held
GATEWAYS = ("vectrade", "paper", "binance-usdm", SPOT_GATEWAY)  #: what common/gateways has
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_SECRET = re.compile(r"(?<=://)[^/@\s]*@|(?<=[?#]).*")


@dataclass(frozen=True)
class Instance:
    name: str = "alpha"  #: separates pipelines of one user; part of every socket and block name
    state_dir: str = ".alpha"  #: journal, logs and the exchange's record; relative to the configuration file
    run_dir: str = ""  #: sockets and locks; default: a private folder under the system's temporary folder


@dataclass(frozen=True)
class Market:
    venue: str = "vectrade"  #: a name from common/venues
    ws_url: str = "ws://127.0.0.1:8765"
    rest_url: str = "http://127.0.0.1:8765"
    symbols: tuple[str, ...] = ("BTC-USD", "ETH-USD", "AAPL", "XAU-USD")
    live: bool = False  #: a real venue: the executor then starts disarmed
    stale_s: float = 10.0  #: no frame for so long: the connection is dropped and made again
    stale_book_s: float = 60.0  #: no change of a book for so long: that symbol is synchronised anew; 0: never
    max_age_s: float = 0.0  #: age of a connection at which another takes over, before the venue ends it; 0: the venue's
    backoff_min_s: float = 0.1
    backoff_max_s: float = 10.0
    proxy: str = ""  #: http://host:port to go through; nothing is read from the environment but $ALPHA_PROXY_AUTH
    max_frame_bytes: int = 32 * 2**20  #: snapshots of 50,000 levels come in one frame
    process: int = 0  #: number of the ingest process that keeps this feed


@dataclass(frozen=True)
class Exchange:
    host: str = "127.0.0.1"
    port: int = 8765
    seed: int = 1
    rate: float = 400.0  #: synthetic market: messages per second over all symbols
    captures: tuple[str, ...] = ()  #: recordings to serve instead of the synthetic market; then there are no feeds
    speed: float = 1.0  #: of a recording; 0: as fast as the client reads
    clock_s: float = 0.0  #: its clock is so far ahead of this machine's; below 0: behind
    fee_bps: float = 1.0  #: charged on the notional of each fill
    orders_per_minute: int = 0  #: answer 429 above it; 0: no limit
    requests_per_minute: int = 0


@dataclass(frozen=True)
class Ring:
    ticks: int = 4096  #: records per symbol in the books ring; a power of two
    rows: int = 4096  #: rows per symbol in the rows ring; a power of two


@dataclass(frozen=True)
class Feature:
    dispatch: str = "newest"  #: "newest": superseded rows are skipped; "every": each row is predicted
    lease_ms: float = 250.0  #: a worker that holds work for longer has lost it
    columns: tuple[str, ...] = ()  #: features, or groups of them, in the rows beside those that the models take
    max_batch: int = 0  #: most rows in one message to a worker; 0: one with "newest", for freshness, 32 with "every"


@dataclass(frozen=True)
class Inference:
    workers: int = 2
    model: str = "models/default.onnx"
    shadow: str = ""  #: a challenger: predicts the same rows, is judged, and never traded
    providers: tuple[str, ...] = ("CPUExecutionProvider",)  #: in order of preference
    allow_fallback: bool = False  #: accept another provider than the first
    custom_ops: tuple[str, ...] = ()  #: libraries of operators that models may use; none: such a model is refused


@dataclass(frozen=True)
class Decision:
    threshold: float = 0.03  #: no order while |p - 0.5| is below it
    cost_aware: bool = False  #: nor while it does not earn spread, fee and slippage (common.sizing)
    fee_bps: float = 1.0  #: of an order that takes
    slippage_bps: float = 0.0  #: expected, one way, beyond the touch
    move_bps: float = 0.0  #: size of the move that the model predicts; 0: volatility * sqrt(move_ticks)
    move_ticks: float = 0.0  #: ticks of a symbol in the model's horizon
    order_notional: float = 5000.0  #: q_max, in quote currency, at full confidence
    sizing: str = "power"  #: "linear", "power": size grows as (2|p - 0.5|) ** power, or "kelly"
    power: float = 1.0
    kelly_fraction: float = 0.25  #: of Kelly's size, by `capital` and the expected move
    capital: float = 0.0  #: one budget over all symbols, which sizes are cut down to; 0: none
    vol_target_bps: float = 3.0  #: a symbol with more volatility per tick is sized down in proportion
    inventory: float = 0.0  #: what adds to a position shrinks as (1 - share of its limit) ** inventory; 0: it does not
    drawdown: float = 0.0  #: sizes shrink to nothing at so much below the day's best profit; 0: they do not
    exit_on_signal: bool = False  #: leave a position once the leaning its way is below hold_threshold
    long_only: bool = False  #: nothing is sold that is not held; so it is on spot, whatever this says
    hold_threshold: float = 0.0  #: below `threshold`: it takes more to enter than to stay
    exit_after_s: float = 0.0  #: leave a position of that age, the model's horizon; 0: never for its age
    stop_bps: float = 0.0  #: leave a position that lost so much against its cost; 0: no stop
    min_hold_s: float = 0.0  #: no signal ends a position that is younger; its age and a stop do


@dataclass(frozen=True)
class Risk:
    """Limits. From `max_net_notional` on a limit of 0 (an empty list) is none."""

    max_order_notional: float = 10_000.0
    max_position_notional: float = 25_000.0  #: per symbol, after the fill, open orders counted
    max_gross_notional: float = 80_000.0  #: over all symbols
    max_orders_per_s: float = 20.0  #: token bucket, with as much burst
    symbol_cooldown_ms: float = 250.0  #: least time between two orders of one symbol
    max_age_ms: float = 250.0  #: of the data behind a decision
    max_book_age_ms: float = 5000.0  #: of the newest tick of the symbol
    collar_bps: float = 50.0  #: limit price against the current mid
    max_daily_loss: float = 5_000.0  #: realised and unrealised; above it the executor does what on_loss says
    max_net_notional: float = 0.0  #: over all symbols, purchases less sales, open orders counted
    max_drawdown: float = 0.0  #: below the day's best profit; above it the same
    max_open_orders: int = 0  #: of all symbols, not at their end
    max_repeats: int = 0  #: orders of one symbol and side in repeat_window_ms
    repeat_window_ms: float = 60_000.0
    duplicate_window_ms: float = 0.0  #: none of the symbol's last side, quantity and price so soon after it
    max_clock_skew_ms: float = 0.0  #: time of receipt against the venue's time, where it is known, either way
    max_model_age_days: float = 0.0  #: since the end of its training data, which the manifest must then tell
    on_loss: str = "halt"  #: above the day's loss or drawdown: "halt", "reduce", or "flatten"
    reject_pause_ms: float = 500.0  #: none of a symbol after an order of it was rejected; doubles up to 64 times that
    allow: tuple[str, ...] = ()  #: symbols that may be traded; empty: all
    block: tuple[str, ...] = ()  #: symbols that may not


@dataclass(frozen=True)
class Executor:
    gateway: str = "vectrade"  #: a name of common/gateways: orders over HTTP; "paper": a local book of our own
    base_url: str = "http://127.0.0.1:8765"
    durability: str = "process"  #: journal survives a "process" crash, or a "power" loss
    journal: str = ""  #: file in the state folder; default: journal.db, or paper.db for a paper book
    timeout_s: float = 2.0  #: no answer for so long: the outcome is unknown and is asked for
    compare_s: float = 60.0  #: positions are compared with the venue's that often, while no order is out; 0: never
    paper_fee_bps: float = 1.0  #: of an order that takes
    paper_maker_fee_bps: float = 1.0  #: of an order that rested
    paper_queue: str = "risk-averse"  #: where a resting order stands among others: or "power"
    paper_latency_ms: float = 1.0


@dataclass(frozen=True)
class Monitor:
    enabled: bool = True  #: workers tell the monitor what they predicted: drift, calibration, challenger
    sample_ms: float = 500.0  #: one prediction of a symbol and model in so much venue time is judged
    page: bool = True  #: serve the page, /metrics, /healthz and /readyz
    host: str = "127.0.0.1"  #: beyond loopback only with $ALPHA_MONITOR_TOKEN
    port: int = 8766
    refresh_ms: float = 250.0  #: between two updates of the page, while somebody looks


@dataclass(frozen=True)
class Alerts:
    """What the monitor tells, and where; the address of a webhook is $ALPHA_ALERTS_WEBHOOK. A limit of 0 is none."""

    enabled: bool = True
    command: tuple[str, ...] = ()  #: program and arguments, no shell; gets the alert as JSON on standard input
    timeout_s: float = 10.0  #: of one attempt to tell
    for_s: float = 2.0  #: that a state must hold before it is told
    clear_s: float = 30.0  #: that it must be over before that is told
    repeat_s: float = 3600.0  #: what goes on is told again after so long; 0: never
    silent_s: float = 3.0  #: a stage gives no sign of life
    restarts: int = 3  #: of a stage in restart_window_s are critical, one is a warning
    restart_window_s: float = 300.0
    stale_s: float = 10.0  #: a feed is not connected or has no ticks, a book is invalid
    unresolved_s: float = 10.0  #: the venue does not say what became of an order
    errors_per_min: int = 10  #: of one stage
    limit_share: float = 0.8  #: of a limit on position, gross, loss or drawdown
    psi: float = 0.25  #: drift of the column that drifts most (common.drift)
    p99_us: float = 0.0  #: from tick to decision


@dataclass(frozen=True)
class Placement:
    pin: bool = True  #: stages on cores
    cores: dict[str, list[int]] = field(default_factory=dict)  #: stage -> cores; default by machine
    downstream_first: bool = True  #: where stages share a core, the one nearest to the order goes first (niceness)
    keep_awake: bool = True  #: hold /dev/cpu_dma_latency at 0 where permitted
    freeze_gc: bool = True  #: collector frozen after warm-up


@dataclass(frozen=True)
class Tap:
    enabled: bool = True


@dataclass(frozen=True)
class Log:
    level: str = "info"
    levels: dict[str, str] = field(default_factory=dict)  #: of single stages, or of all of a kind: inference
    format: str = "auto"  #: "json", "text", or "auto": json under supervisord, which keeps files, text elsewhere
    repeats: int = 50  #: of one event in a window; the rest are counted and told as one; 0: no limit
    repeat_window_s: float = 10.0


@dataclass(frozen=True)
class Instrument:
    tick: str = "0.01"  #: price increment
    lot: str = "0.0001"  #: quantity increment
    max_qty: str = "0"  #: of one order; 0: no such limit
    min_notional: str = "0"  #: of one order; 0: no such limit
    asset_type: str = "CRYPTO"


@dataclass(frozen=True)
class Config:
    instance: Instance = Instance()
    market: Market = Market()
    feeds: dict[str, Market] = field(default_factory=dict)  #: more of them, by name; their symbols are NAME:SYMBOL
    exchange: Exchange = Exchange()
    ring: Ring = Ring()
    feature: Feature = Feature()
    inference: Inference = Inference()
    decision: Decision = Decision()
    risk: Risk = Risk()
    executor: Executor = Executor()
    monitor: Monitor = Monitor()
    alerts: Alerts = Alerts()
    placement: Placement = Placement()
    tap: Tap = Tap()
    log: Log = Log()
    instruments: dict[str, Instrument] = field(default_factory=dict)
    base: str = "."  #: folder of the configuration file; relative paths start here

    def instrument(self, symbol: str) -> Instrument:
        return self.instruments.get(symbol, Instrument())

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol of every feed, in the order of the rings."""
        return (*self.market.symbols, *(f"{name}:{symbol}" for name, feed in self.feeds.items()
                                        for symbol in feed.symbols))

    @property
    def ingests(self) -> int:
        """How many ingest processes there are."""
        return 1 + max(feed.process for feed in (self.market, *self.feeds.values()))

    def path(self, text: str) -> Path:
        """`text` as a path, relative ones taken from the configuration file's folder."""
        return (Path(self.base) / os.path.expanduser(text)).resolve()

    @property
    def state_dir(self) -> Path:
        return self.path(self.instance.state_dir)

    @property
    def run_dir(self) -> Path:
        if self.instance.run_dir:
            return self.path(self.instance.run_dir)
        return Path(tempfile.gettempdir()) / f"alpha-{os.getuid()}" / self.instance.name


def load(path: str | os.PathLike | None = None, environ: typing.Mapping[str, str] = os.environ) -> Config:
    """The configuration of `path`, or of $ALPHA_CONFIG, or of ./alpha.toml, or the defaults; with the
    environment's overrides applied. Raises ConfigError naming section, key and value."""
    config = _build(Config, _tree(path, environ), "")
    if config.exchange.captures:  # another day: what other venues say today has no place beside it
        config = dataclasses.replace(config, feeds={})
    _check(config)
    return config


def _tree(path: str | os.PathLike | None, environ: typing.Mapping[str, str]) -> dict:
    """What the file and the environment say, as plain values."""
    source = path or environ.get(ENV_CONFIG) or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
    tree: dict = {}
    if source:
        try:
            tree = tomllib.loads(Path(source).read_text())
        except OSError as error:
            raise ConfigError("cannot read the configuration", where=f"{source}: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError("the configuration is not valid TOML", where=f"{source}: {error}") from None
    for name, value in environ.items():
        section, separator, key = name.removeprefix(ENV_PREFIX).partition("__")
        if name.startswith(ENV_PREFIX) and separator:
            tree.setdefault(section.lower(), {})[key.lower()] = _toml_value(value)
    tree["base"] = str(Path(source).resolve().parent) if source else os.getcwd()
    return tree


def anyway(path: str | os.PathLike | None = None, environ: typing.Mapping[str, str] = os.environ) -> Config:
    """As `load`, but what was mistyped since the pipeline was started keeps nobody from restraining it: of a file that
    does not load the section `instance` alone counts, and all else is as the executor was started with, or as by
    default. Raises ConfigError where even that cannot be read."""
    try:
        return load(path, environ)
    except ConfigError as error:
        try:
            tree = _tree(path, environ)
            found = _build(Config, {"instance": tree.get("instance", {}), "base": tree["base"]}, "")
        except ConfigError:
            raise error from None
        return told(found, "executor")


def without_secret(text: str) -> str:
    """An address without what may stand in it beside the address: a name and its password, a query."""
    return _SECRET.sub("", text) if "://" in text else text


def plain(config: Config) -> dict[str, typing.Any]:
    """As JSON has it, addresses as `without_secret` leaves them."""
    def stripped(tree: typing.Any) -> typing.Any:
        if isinstance(tree, dict):
            return {key: stripped(value) for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            return [stripped(value) for value in tree]
        return without_secret(tree) if isinstance(tree, str) else tree

    return stripped(dataclasses.asdict(config))


def restore(tree: object) -> Config:
    """A configuration from what `plain` made of it, by way of JSON. Raises ConfigError naming a key that
    this version does not have."""
    return _build(Config, tree, "")


def tell(config: Config, stage: str) -> None:
    """Leave word in the instance's private folder of what a stage was started with, for commands of other terminals,
    whose environment may differ."""
    path = config.run_dir / f"{stage}.config.json"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(plain(config)))
    draft.replace(path)


def told(config: Config, stage: str) -> Config:
    """What a stage of this instance was last started with; `config` itself where nothing usable is told."""
    try:
        return restore(json.loads((config.run_dir / f"{stage}.config.json").read_text()))
    except (OSError, ValueError, ConfigError):
        return config


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _build(kind: type, tree: object, where: str) -> typing.Any:
    """`tree` (plain TOML values) as an instance of `kind`, strictly."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(tree, dict):
            raise ConfigError("a section was expected", where=f"{where}={tree!r}")
        known = {f.name: f.type for f in dataclasses.fields(kind)}
        for key in tree:
            if key not in known:
                raise ConfigError("unknown configuration key", where=_join(where, key),
                                  remedy=f"known here: {', '.join(k for k in known if k != 'base')}")
        return kind(**{key: _build(known[key], value, _join(where, key)) for key, value in tree.items()})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(tree, list):
        return tuple(_build(args[0], item, where) for item in tree)
    if origin is list and isinstance(tree, list):
        return [_build(args[0], item, where) for item in tree]
    if origin is dict and isinstance(tree, dict):
        return {key: _build(args[1], value, _join(where, key)) for key, value in tree.items()}
    if kind is float and isinstance(tree, int) and not isinstance(tree, bool):
        return float(tree)
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and type(tree) is kind:
        return tree
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise ConfigError(f"a value of type {name} was expected", where=f"{where}={tree!r}")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _check(config: Config) -> None:
    """What the types cannot say."""
    def need(ok: bool, key: str, value: object, remedy: str) -> None:
        if not ok:
            raise ConfigError("a configuration value is out of range", where=f"{key}={value!r}", remedy=remedy)

    name = config.instance.name
    need(name.replace("-", "").replace("_", "").isalnum() and len(name) <= 32, "instance.name", name,
         "use up to 32 letters, digits, - and _")
    for key, feed in (("market", config.market), *((f"feeds.{name}", feed) for name, feed in config.feeds.items())):
        need(len(set(feed.symbols)) == len(feed.symbols) > 0, f"{key}.symbols", list(feed.symbols),
             "name at least one symbol, each once")
        need(0 <= feed.process < 64, f"{key}.process", feed.process, "use 0 to 63")
        for limit in ("stale_s", "stale_book_s", "max_age_s"):
            need(getattr(feed, limit) >= 0, f"{key}.{limit}", getattr(feed, limit), "use 0 or more")
    for key, size in (("ring.ticks", config.ring.ticks), ("ring.rows", config.ring.rows)):
        need(size >= 1024 and size & (size - 1) == 0, key, size, "use a power of two, 1024 or more")
    need(config.feature.dispatch in ("newest", "every"), "feature.dispatch", config.feature.dispatch,
         'use "newest" or "every"')
    need(0 <= config.feature.max_batch <= 256, "feature.max_batch", config.feature.max_batch, "use 0 to 256")
    need(config.market.process == 0, "market.process", config.market.process,
         "process 0 makes the ring that the others write to: give other feeds another process")
    need(1 <= config.inference.workers <= 64, "inference.workers", config.inference.workers, "use 1 to 64")
    need(0 <= config.decision.threshold < 0.5, "decision.threshold", config.decision.threshold,
         "use 0 or more, below 0.5")
    need(config.exchange.rate > 0, "exchange.rate", config.exchange.rate, "use more than 0")
    for symbol, instrument in config.instruments.items():
        for key in ("tick", "lot"):
            value = getattr(instrument, key)
            try:
                increment = fixed.parse(value)
            except VenueError:
                increment = 0
            need(increment > 0, f"instruments.{symbol}.{key}", value, 'use a decimal above 0, as text: "0.01"')
        for key in ("max_qty", "min_notional"):
            value = getattr(instrument, key)
            try:
                limit = fixed.parse(value)
            except VenueError:
                limit = -1
            need(limit >= 0, f"instruments.{symbol}.{key}", value, 'use a decimal, as text: "0.01"; "0": no limit')
    need(config.exchange.speed >= 0, "exchange.speed", config.exchange.speed, "use 0 or more")
    need(config.executor.gateway in GATEWAYS, "executor.gateway", config.executor.gateway,
         f"use one of {', '.join(GATEWAYS)}")
    need(config.executor.paper_queue in ("risk-averse", "power"), "executor.paper_queue", config.executor.paper_queue,
         'use "risk-averse" or "power"')
    need(config.monitor.refresh_ms >= 50, "monitor.refresh_ms", config.monitor.refresh_ms, "use 50 or more")
    need(0 < config.monitor.port < 65536, "monitor.port", config.monitor.port, "use 1 to 65535")
    need(config.monitor.sample_ms >= 0, "monitor.sample_ms", config.monitor.sample_ms, "use 0 or more")
    for key, level in (("log.level", config.log.level), *((f"log.levels.{name}", level)
                                                          for name, level in config.log.levels.items())):
        need(level in LOG_LEVELS, key, level, f"use one of {', '.join(LOG_LEVELS)}")
    need(config.log.format in ("auto", "json", "text"), "log.format", config.log.format,
         'use "auto", "json" or "text"')
    need(config.log.repeats >= 0, "log.repeats", config.log.repeats, "use 0 or more")
    need(0 < config.log.repeat_window_s < math.inf, "log.repeat_window_s", config.log.repeat_window_s,
         "use more than 0")
    need(config.risk.on_loss in ("halt", "reduce", "flatten"), "risk.on_loss", config.risk.on_loss,
         'use "halt", "reduce" or "flatten"')
    need(0 <= config.executor.compare_s < math.inf, "executor.compare_s", config.executor.compare_s, "use 0 or more")
    need(config.executor.durability in ("process", "power"), "executor.durability",
         config.executor.durability, 'use "process" or "power"')
    need(config.alerts.timeout_s > 0, "alerts.timeout_s", config.alerts.timeout_s, "use more than 0")
    need(not config.alerts.command or bool(config.alerts.command[0]), "alerts.command", list(config.alerts.command),
         'name a program: ["notify-send", "alpha"]')
    for section in (config.risk, config.decision, config.alerts):
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            need(not isinstance(value, (int, float)) or 0 <= value < math.inf,
                 f"{type(section).__name__.lower()}.{item.name}", value, "use 0 or more")
    decision = config.decision
    need(decision.sizing in ("linear", "power", "kelly"), "decision.sizing", decision.sizing,
         'use "linear", "power" or "kelly"')
    moves = decision.move_bps > 0 or decision.move_ticks > 0
    need(moves or not decision.cost_aware, "decision.cost_aware", decision.cost_aware,
         "set decision.move_bps or decision.move_ticks: what a trade earns depends on the move")
    need(moves and decision.capital > 0 or decision.sizing != "kelly", "decision.sizing", decision.sizing,
         "set decision.capital, and decision.move_bps or decision.move_ticks")
    need(decision.hold_threshold <= decision.threshold, "decision.hold_threshold", decision.hold_threshold,
         "use at most decision.threshold: it takes more to enter than to stay")
