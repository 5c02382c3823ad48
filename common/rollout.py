"""Deploying to a running pipeline, from outside: what is wanted is written, and what becomes of it is read in the
workers' telemetry.

    prepare   each worker loads the pair beside the one that serves; feature gives the rows the columns it takes
    commit    all are ready: each changes over between two messages
    watch     for a moment: a model error, a worker that ends, and the former pair is put back, without loading

Until the commit, any failure leaves the pipeline as it was, and so does the end of this process at any moment.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import deployment
from common.config import Config
from common.deployment import Deployment, Pair
from common.errors import InstanceError, ModelError
from common.locks import lock_file
from common.overview import Overview
from common.succession import FAILED, LIVE, READY

_STEP_S = 0.02
_TELL_S = 5.0  #: between two words about what is waited for


@dataclass(frozen=True)
class Outcome:
    live: Pair
    former: Pair
    workers: tuple[str, ...]
    prepare_s: float  #: until all were ready
    commit_s: float  #: until all had changed over
    predictions: int  #: made while it was watched


def deploy(config: Config, choose: Callable[[Pair, Path], Pair], timeout_s: float = 60.0, watch_s: float = 2.0,
           say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Put the pair that `choose` makes of (the pair in use, the state folder) in force in all running workers.

    Raises InstanceError if no worker runs or another deployment is under way, and ModelError, with what a worker said,
    if one cannot take it, is not ready in time, or fails with it: then the former pair is in force."""
    pipeline = _Pipeline(config)
    folder, configured, live = pipeline.origin()
    fd = lock_file(folder / "deploy.lock", "a deployment to this instance")
    try:
        pair = choose(live, folder)
        if pair == live:
            say("it is in force already")
            return Outcome(live, live, tuple(sorted(pipeline.workers)), 0.0, 0.0, 0)
        base = Deployment(time.time_ns(), configured, live)
        return _Rollout(pipeline, folder, base, pair, timeout_s, watch_s, say).go()
    finally:
        told = deployment.read(folder)
        if told is not None:
            deployment.prune(folder, told)
        os.close(fd)


class _Rollout:
    def __init__(self, pipeline: "_Pipeline", folder: Path, base: Deployment, pair: Pair, timeout_s: float,
                 watch_s: float, say: Callable[[str], None]) -> None:
        self._pipeline, self._folder, self._base, self._pair = pipeline, folder, base, pair
        self._timeout_s, self._watch_s, self._say = timeout_s, watch_s, say

    def go(self) -> Outcome:
        base, pair = self._base, self._pair
        started = time.monotonic()
        self._write(base, next=pair)
        try:
            self._await(base.number, READY)
        except BaseException:  # Ctrl-C too
            self._write(base)
            raise
        ready = time.monotonic()
        self._say(f"ready in {len(self._pipeline.workers)} workers after {ready - started:.2f} s")
        before = self._pipeline.count("predictions")
        starts = self._pipeline.count("starts")
        self._write(base, live=pair, former=base.live)
        try:
            self._await(base.number, LIVE)
            changed = time.monotonic()
            self._say(f"in force after {changed - ready:.2f} s; watched for {self._watch_s:g} s")
            while time.monotonic() < changed + self._watch_s:
                self._judge(starts)
                time.sleep(_STEP_S)
            self._judge(starts)
        except ModelError as error:
            back = Deployment(time.time_ns(), base.configured, base.live)
            self._write(back)
            with contextlib.suppress(ModelError):
                self._await(back.number, LIVE)
            raise ModelError(f"rolled back: {error.what}", where=error.where, remedy=error.remedy) from None
        return Outcome(pair, base.live, tuple(sorted(self._pipeline.workers)), ready - started, changed - ready,
                       self._pipeline.count("predictions") - before)

    def _write(self, base: Deployment, **change: Any) -> None:
        deployment.write(self._folder, Deployment(**{**vars(base), **change}))

    def _await(self, number: int, wanted: str) -> None:
        """Until every worker says `wanted` of deployment `number`."""
        end, told = time.monotonic() + self._timeout_s, time.monotonic() + _TELL_S
        while True:
            self._pipeline.refresh()
            said = {name: self._pipeline.said(name, number) for name in self._pipeline.workers}
            feature = self._pipeline.said("feature", number)
            if feature.get("state") == FAILED:
                raise ModelError("the rows cannot carry what the model takes", where=f"feature: {feature['why']}")
            if feature.get("why") and time.monotonic() > told:
                told = time.monotonic() + _TELL_S
                self._say(f"waiting: {feature['why']}")
            for name, words in said.items():
                if words.get("state") == FAILED:
                    raise ModelError("a worker cannot take the model", where=f"{name}: {words['error']}")
            late = [name for name, words in said.items() if words.get("state") != wanted]
            if not late:
                return
            if time.monotonic() > end:
                words = said[late[0]]
                state = ": ".join(filter(None, (words.get("state", "says nothing"), words.get("error"),
                                                feature.get("why"))))
                raise ModelError(f"a worker is not {wanted} in time",
                                 where=f"{late[0]} after {self._timeout_s:g} s: {state}",
                                 remedy="see its log, and `alpha status`; --timeout gives it longer")
            time.sleep(_STEP_S)

    def _judge(self, starts: int) -> None:
        self._pipeline.refresh()
        for counter, what in (("fresh_errors", "the model"), ("fresh_shadow_errors", "the challenger")):
            errors = self._pipeline.count(counter)
            if errors:
                raise ModelError(f"{what} gives no answer on live rows", where=f"{errors} times within "
                                 f"{self._watch_s:g} s", remedy="see the workers' logs")
        if self._pipeline.count("starts") != starts:
            raise ModelError("a worker ended after it had changed over", where=", ".join(self._pipeline.workers),
                             remedy="see its log")


class _Pipeline:
    """The workers, as their telemetry tells."""

    def __init__(self, config: Config) -> None:
        self._overview, self.workers = Overview(config.instance.name), set[str]()
        self.refresh()
        if not self.workers:
            raise InstanceError("no worker of this instance runs", where=f"instance.name={config.instance.name!r}",
                                remedy="start it (alpha run), or set inference.model for its next start")

    def refresh(self) -> None:
        """One that has been seen is expected to be there again; new ones are to take part."""
        self._overview.refresh()
        self.workers |= {name for name in self._overview.stages
                         if name.startswith("inference-") and self._overview.ready(name)}

    def origin(self) -> tuple[Path, Pair, Pair]:
        """The state folder, what the configuration says, and the pair in use, as the workers have it: the command that
        deploys may have been given another configuration."""
        end = time.monotonic() + _TELL_S
        while True:
            told = [words for name in sorted(self.workers)
                    if (words := self._overview.stages[name].told().get("deployment"))]
            pairs = {deployment.pair_of(words["pair"]) for words in told}
            if len(pairs) == 1 and len(told) == len(self.workers):
                break
            if time.monotonic() > end:
                raise InstanceError("the workers do not use the same models", where="; ".join(
                    pair.model.path for pair in pairs) or "none tells", remedy="try again when all have started")
            time.sleep(_STEP_S)
        return Path(told[0]["state_dir"]), deployment.pair_of(told[0]["configured"]), pairs.pop()

    def said(self, stage: str, number: int) -> dict[str, Any]:
        """What a stage says of deployment `number`; empty if nothing, or if it is not there."""
        telemetry = self._overview.stages.get(stage)
        if telemetry is None or not self._overview.ready(stage):
            return {}
        words = telemetry.told().get("deployment") or {}
        return words if words.get("number") == number else {}

    def count(self, counter: str) -> int:
        return self._overview.get("inference", counter)
