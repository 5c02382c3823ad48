"""What the instance keeps: the journal, the model in force, the kill switch."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common import deployment, instant, killswitch, locks
from common.config import Config
from common.config import told as told_by
from common.deployment import Deployment, Pair
from common.doctor.check import Check, Finding, error, note, ok, refused, warning
from common.doctor.patient import Patient
from common.errors import AlphaError
from common.gateways import is_live
from common.journal import Reader, located
from common.journal.log import lost_commits
from common.killswitch import Halt, Reduction

_WHOLE = 64 * 2**20  # bytes of a journal up to which each row is examined here, which takes some 3 s


class Record(NamedTuple):
    path: str
    there: bool
    size: int  #: bytes, its log with it
    problem: AlphaError | None
    counts: dict[str, int]  #: rows by table; empty: not examined
    lost: int  #: commits behind a damaged place of its log
    alone: bool  #: its log is there, and it is not
    written: bool  #: a process has it open for writing


class Looked(NamedTuple):
    """One model."""

    role: str  #: "model" or "challenger"
    path: str
    problem: AlphaError | None
    told: Mapping[str, Any]


class Models(NamedTuple):
    found: list[Looked]
    asked: tuple[str, ...]  #: execution providers
    max_age_ms: float  #: of the data behind a decision
    damaged: AlphaError | None
    deployed: Deployment | None
    configured: Pair


class Switch(NamedTuple):
    halt: Halt | None
    reduction: Reduction | None
    live: bool
    armed: bool
    running: bool


def look_record(patient: Patient) -> Record:
    config = patient.config
    # The executor that runs may have been started with another environment.
    running = told_by(config, "executor")
    path = located(running if running.state_dir == config.state_dir else config)
    log = path.with_name(f"{path.name}-wal")
    size = sum(one.stat().st_size for one in (path, log) if one.exists())
    written = locks.holder(path.with_suffix(".lock")) is not None
    if not path.exists():
        return Record(str(path), False, size, None, {}, 0, log.exists(), written)
    counts, problem, lost = {}, None, 0
    try:
        if log.exists() and not written and size <= _WHOLE:
            lost = lost_commits(log.read_bytes())
        reader = Reader(path)
        try:
            counts = reader.verify() if size <= _WHOLE else {}
        finally:
            reader.close()
    except AlphaError as error_:
        problem = error_
    return Record(str(path), True, size, problem, counts, lost, False, written)


def judge_record(found: Record) -> Iterator[Finding]:
    damaged = "the executor refuses to start, for what it held is not known"
    away = "move it away together with its -wal and -shm files; compare positions with the venue's first"
    if found.alone:
        yield error(f"{found.path} is gone, and its -wal file is there", damaged, away)
    elif not found.there:
        yield ok(f"no journal yet at {found.path}")
    elif found.problem:
        yield refused(found.problem, damaged, away)
    elif found.lost:
        yield error(f"{found.path}: its log is damaged, and at least {found.lost} commits behind that place are lost",
                    damaged, away)
    elif not found.counts:
        yield note(f"{found.path}: {found.size / 2**20:,.0f} MiB, pages and rows not examined",
                   "that takes more than a few seconds", "alpha orders --verify")
    else:
        unsummed = found.counts.get("unsummed", 0)
        if unsummed:
            yield note(f"{found.path}: {unsummed:,} rows are from before there were checksums",
                       "a changed number in them is not found", "nothing to do; they grow old")
        yield ok(f"{found.path}: {found.counts.get('orders', 0):,} orders, {found.counts.get('fills', 0):,} fills, "
                 f"each row as it was written{'; an executor writes it' if found.written else ''}")


def look_models(patient: Patient) -> Models:
    config, damaged, deployed = patient.config, None, None
    configured = deployment.configured(config)
    pair = configured
    try:
        deployed = deployment.read(config.state_dir)
        pair = deployed.live if deployed and deployed.configured == configured else configured
    except AlphaError as problem:
        damaged = problem
    found = []
    for role, ref in (("model", pair.model), ("challenger", pair.shadow)):
        if ref is None:
            continue
        try:
            ref.verify()
            found.append(Looked(role, ref.path, None, patient.examine_model(Path(ref.path), config)))
        except AlphaError as problem:
            found.append(Looked(role, ref.path, problem, {}))
    return Models(found, config.inference.providers, config.risk.max_age_ms, damaged, deployed, configured)


def judge_models(found: Models) -> Iterator[Finding]:
    if found.damaged:
        yield refused(found.damaged, "workers do not start", "remove it")
    for one in found.found:
        if one.problem:
            yield refused(one.problem, "workers do not start with it" if one.role == "model" else
                          "no challenger is judged, and workers do not start", f"alpha model check {one.path}")
            continue
        told = one.told
        taken = told.get("latency_us", {}).get(1, {})
        words = f"{one.role} {told['name']} {told['id']}: {len(told['features'])} features, window {told['window']}"
        if taken:
            words += f", one window p50 {taken['p50']:,.1f} us, p99 {taken['p99']:,.1f} us"
        if taken and taken["p50"] / 1e3 > found.max_age_ms:
            yield error(words, f"every decision is refused: data is older than risk.max_age_ms = {found.max_age_ms:g}",
                        "use a smaller model, a faster provider, or raise the limit")
        elif taken and taken["p99"] / 1e3 > found.max_age_ms / 2:
            yield warning(words, f"half of risk.max_age_ms = {found.max_age_ms:g} goes into the model",
                          "use a smaller model or a faster provider")
        else:
            yield ok(f"{words}, by {told['provider']}")
        if found.asked and told["provider"] != found.asked[0]:
            yield warning(f"{one.role}: {told['provider']} runs it, asked for is {found.asked[0]}",
                          "it is slower than was planned; inference.allow_fallback lets that pass",
                          "install the package of that provider, with its driver; or ask for the one that is there")
        for remark in told.get("remarks", ()):
            yield note(f"{one.role}: {remark}", "that much less is checked",
                       "python -m models.describe, or alpha train")
    if found.deployed and found.deployed.configured != found.configured:
        yield note(f"what was deployed ({found.deployed.live.model.path}) is not in force",
                   "inference.model or inference.shadow was changed since",
                   "alpha model deploy it again, or leave it so")
    elif found.deployed and found.deployed.next:
        yield warning("a deployment is under way, or was left half-way", "workers load a model that no one waits for",
                      "alpha model deploy it again")


def look_switch(patient: Patient) -> Switch:
    config: Config = patient.config
    return Switch(killswitch.state(config.state_dir), killswitch.reduction(config.state_dir), is_live(config),
                  os.path.exists(config.state_dir / killswitch.ARMED_FILE),
                  locks.holder(config.run_dir / "stage.executor.lock") is not None)


def judge_switch(found: Switch) -> Iterator[Finding]:
    if found.halt:
        yield warning(f"halted by {found.halt.who}{_since(found.halt.when_ns)}: {found.halt.why}", "no order leaves",
                      "look into the reason, then alpha resume")
    if found.reduction:
        doing = "flattening" if found.reduction.flatten else "reducing"
        yield warning(f"{doing}, by {found.reduction.who}{_since(found.reduction.when_ns)}: {found.reduction.why}",
                      "only orders leave that shrink a position", "look into the reason, then alpha resume")
    if found.live and not found.armed:
        yield note("live, and not armed", "no order leaves", "alpha arm" + (
            "" if found.running else ", once the executor runs: it disarms at its start"))
    if not found.halt and not found.reduction and (found.armed or not found.live):
        yield ok("orders may leave" + (": armed on a live venue" if found.live else ""))


def _since(when_ns: int) -> str:
    return f" at {instant.utc(when_ns)}" if when_ns else ""


JOURNAL = Check("journal", "whether the journal is as it was written", look_record, judge_record, needs_config=True)
MODEL = Check("model", "the model in force, as a worker would load it", look_models, judge_models, needs_config=True)
SWITCH = Check("switch", "kill switch, reduction, safety catch", look_switch, judge_switch, needs_config=True)
