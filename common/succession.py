"""The models that a worker serves with, and how their successors come: loaded beside them by a thread of their own, for
ONNX Runtime holds no lock of Python's while it works, and taken over by the worker between two messages.

A worker asks a few times a second (`turn`); what it does meanwhile is none of this module's business. What has been
deployed stands in `common.deployment`, and who deploys reads `state` in the worker's telemetry.
"""

import logging
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from common import deployment
from common.config import Config, Inference
from common.deployment import Pair
from common.errors import AlphaError, LayoutError
from common.model import Model

LIVE, LOADING, WAITING, READY, FAILED = "live", "loading", "waiting for columns", "ready", "failed"

_SWITCH_S = 0.0005  #: while a thread loads, the one that serves gets Python back within so long
_log = logging.getLogger("deployment")


class Engines(NamedTuple):
    """A pair of models, loaded."""

    pair: Pair
    model: Model
    shadow: Model | None


def load(pair: Pair, settings: Inference, *have: Engines) -> Engines:
    """The models of `pair`; those that `have` holds already are not loaded again.

    Raises ModelError as `Model.load` does, or where a file is not the one that was deployed."""
    known = {ref: model for engines in have for ref, model in zip(engines.pair, (engines.model, engines.shadow)) if ref}
    found = []
    for ref in pair:
        if ref is not None and ref not in known:
            ref.verify()
            known[ref] = Model.configured(ref.path, settings)
        found.append(known[ref] if ref is not None else None)
    return Engines(pair, *found)


class _Loading(threading.Thread):
    def __init__(self, number: int, pair: Pair, work: Callable[[], Engines]) -> None:
        super().__init__(name="loading", daemon=True)
        self.number, self.pair, self._work = number, pair, work
        self.engines: Engines | None = None
        self.error = ""

    def run(self) -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            self.engines = self._work()
        except AlphaError as error:
            self.error = str(error)
        except Exception as error:  # whatever it is, the model that serves goes on
            self.error = repr(error)
        finally:
            sys.setswitchinterval(before)


class Succession:
    """Follows the file of what is deployed."""

    def __init__(self, config: Config, engines: Engines) -> None:
        self._settings, self._configured = config.inference, deployment.configured(config)
        self._watch = deployment.Watch(config.state_dir)
        self._told = deployment.read(config.state_dir)
        self.engines = engines
        self._former: Engines | None = None  #: kept, so that the way back takes no loading
        self._loading: _Loading | None = None
        self.state: dict[str, object] = {}  #: of the newest deployment: "number", "state", "error"

    def turn(self, fits: Callable[[Engines], object]) -> Engines | None:
        """The engines to change to now, None to go on. `fits` raises LayoutError while the rows lack their columns, and
        ModelError where they can never serve. A few microseconds."""
        if self._watch.changed():
            self._read()
        told = self._told
        if told is None or told.configured != self._configured:
            return None
        committed = told.live != self.engines.pair
        wanted = told.live if committed else told.next
        if wanted is None or wanted == self.engines.pair:
            self._say(LIVE)
            return None
        engines = self._have(wanted, told.number)
        if engines is None:
            return None
        try:
            fits(engines)
        except LayoutError as error:
            self._say(WAITING, str(error))
            return None
        except AlphaError as error:
            self._say(FAILED, str(error))
            return None
        if not committed:
            self._say(READY)
            return None
        self._former, self.engines, self._loading = self.engines, engines, None
        self._say(LIVE)
        return engines

    def _read(self) -> None:
        try:
            self._told = deployment.read(self._watch.folder)
        except AlphaError as error:
            _log.error("%s", error)

    def _have(self, pair: Pair, number: int) -> Engines | None:
        """`pair`, loaded; else see that it is being loaded, and None."""
        loading = self._loading
        if self._former is not None and self._former.pair == pair:
            return self._former
        if loading is not None and loading.is_alive():
            self._say(LOADING)
            return None
        if loading is None or loading.pair != pair or (loading.error and loading.number != number):
            have = [self.engines] + ([self._former] if self._former else [])
            self._loading = _Loading(number, pair, lambda: load(pair, self._settings, *have))
            self._loading.start()
            self._say(LOADING)
            return None
        if loading.engines is None:
            self._say(FAILED, loading.error)
        return loading.engines

    def _say(self, state: str, error: str = "") -> None:
        said = {"number": self._told.number, "state": state, "error": error}
        if said != self.state:
            self.state = said
            if error and state == FAILED:
                _log.error("the deployed model is not taken: %s", error)
