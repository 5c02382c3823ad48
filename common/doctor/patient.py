"""What is examined: a configuration that may be broken, an environment, and where a machine tells of itself."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.config import DEFAULT_FILE, ENV_CONFIG, Config, load
from common.errors import AlphaError
from common.log import MASK, SECRETS, masked_forms

ROOT = Path(__file__).resolve().parents[2]  #: of the checkout
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "NO_PROXY")
_LEAST = 4  # characters of a secret that can be told from a word of ours


@dataclass(frozen=True)
class Patient:
    """`stages` gives counters, timers and notes of a stage's telemetry by its name; `examine_model(path, config)` tells
    what a model is, or raises ModelError; `render(config)` is the supervisor's configuration. They belong to `procs`,
    which nothing here may import."""

    config: Config | None  #: None where it does not load
    problem: AlphaError | None  #: why it does not
    source: Path | None  #: file of the configuration; None: defaults
    environ: Mapping[str, str]
    stages: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], int]] = field(default_factory=dict)
    examine_model: Callable[[Path, Config], Mapping[str, Any]] | None = None
    render: Callable[[Config], str] | None = None
    root: Path = ROOT
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")

    @classmethod
    def of(cls, path: str | None, environ: Mapping[str, str] = os.environ, **more: Any) -> "Patient":
        """With the configuration of `path`, as `common.config.load` finds it."""
        named = path or environ.get(ENV_CONFIG) or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else "")
        source = Path(named).absolute() if named else None
        try:
            return cls(load(path, environ), None, source, environ, **more)
        except AlphaError as problem:
            return cls(None, problem, source, environ, **more)

    def scrub(self, text: str) -> str:
        """`text` without any secret of the environment, nor what else is in an address of a proxy or of PROXY_AUTH."""
        parts = [part for name in SECRETS for part in self.environ.get(name, "").split(":")]
        for name in PROXIES:
            proxy = urlsplit(self.environ.get(name, "") or self.environ.get(name.lower(), ""))
            parts += [proxy.password or "", proxy.username or ""]
        for secret in (*masked_forms(self.environ), *sorted(parts, key=len, reverse=True)):
            if len(secret) >= _LEAST:
                text = text.replace(secret, MASK)
        return text

    @property
    def started(self) -> tuple[str, ...]:
        """The stages that `alpha run` starts, by the names of their telemetry."""
        config = self.config or Config()
        ingests = (f"ingest-{k}" for k in range(1, config.ingests))
        workers = (f"inference-{k}" for k in range(config.inference.workers))
        return ("exchange", "ingest", *ingests, "feature", *workers, "executor",
                *(("monitor",) if config.monitor.enabled else ()))
