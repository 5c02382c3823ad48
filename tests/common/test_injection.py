"""Injection: stamps move together, and nothing gets to where it might cost money."""

import dataclasses
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Config, Executor, Instance, Market, tell
from common.errors import ConfigError, InstanceError
from common.injection import allow, places, rebase, timed
from common.locks import lock_file
from common.ring import Books
from common.tap_file import Heard, Note
from common.wire import Prediction, TickRef, decode, encode

stamp = st.one_of(st.just(0), st.integers(10**9, 2**61))
predictions = st.builds(Prediction, st.integers(0, 1), st.just(0), st.just(7), st.integers(1, 9), st.just(0),
                        st.just(1), stamp, st.just(5), st.just(0.5), st.just(0.5), st.just(1.0), st.just(1), st.just(2),
                        stamp, stamp, stamp, stamp, stamp, stamp)
ticks = st.builds(TickRef, st.integers(0, 1), st.just(7), st.integers(1, 9), stamp, stamp)
lists = st.one_of(st.lists(predictions, min_size=1, max_size=4), st.lists(ticks, min_size=1, max_size=4))
NOTE = Note("predictions", ("A", "B"), 0)


@settings(max_examples=40)
@given(st.lists(lists, min_size=1, max_size=5), st.integers(-10**8, 2**60), st.integers(-10**8, 2**60))
def test_all_stamps_of_a_message_move_by_the_same_and_the_rest_stays(found, by_ns, unix_by_ns):
    last = 0
    for message, records in zip(timed(iter([Heard(0, encode(one), NOTE) for one in found])), found):
        assert message.sent_ns >= last and message.sent_ns >= max(one[-1] for one in records)
        last = message.sent_ns
        for before, after in zip(records, decode(rebase(message, by_ns, unix_by_ns))):
            for name, old in before._asdict().items():
                moves = by_ns if name.endswith("_ns") and name != "event_ns" else unix_by_ns * (name == "event_ns")
                assert getattr(after, name) == (old + moves if old else old)


def test_a_message_is_put_on_another_stream_with_its_symbols():
    message = next(timed(iter([Heard(0, encode([TickRef(0, 7, 1, 2, 3), TickRef(1, 7, 1, 2, 3)]), NOTE)])))
    assert decode(rebase(message, 0, 0, 9, [1, 0])) == [TickRef(1, 9, 1, 2, 3), TickRef(0, 9, 1, 2, 3)]


def test_another_stream_is_refused_unless_it_is_asked_for():
    heard = Heard(0, encode([TickRef(0, 7, 1, 2, 3)]), NOTE)
    assert places(Books(("A", "B"), 1024, 7, None), heard, False) == (None, None)
    there = Books(("B", "C", "A"), 1024, 9, None)
    with pytest.raises(ConfigError, match=r"another stream .*epoch 7, here 9.*--restream"):
        places(there, heard, False)
    assert places(there, heard, True) == (9, [2, 0])
    with pytest.raises(ConfigError, match="does not have.*B; here A"):
        places(Books(("A",), 1024, 9, None), heard, True)


@pytest.fixture
def config(run_dir, instance):
    return Config(instance=Instance(name=instance, run_dir=str(run_dir)), executor=Executor(gateway="paper"))


@pytest.mark.parametrize("link", ["work", "credits", "judged", "decisions", "frames"])
def test_links_that_cannot_be_injected_into_are_refused(config, link):
    with pytest.raises(ConfigError, match="nothing can be injected into this link .*ticks, predictions"):
        allow(config, link)


@pytest.mark.parametrize("live", [
    {"market": Market(live=True)}, {"feeds": {"x": Market(live=True)}},
    {"executor": Executor(base_url="https://venue.example")}, {"executor": Executor(gateway="binance-spot",
                                                                                    base_url="https://x.example")}])
def test_nothing_is_injected_where_money_may_be_at_stake(config, live):
    allow(config, "predictions")
    with pytest.raises(ConfigError, match="real money.*this configuration"):
        allow(dataclasses.replace(config, **live), "predictions")
    # The terminal's own configuration is harmless, but not that of the executor that runs.
    tell(dataclasses.replace(config, **live), "executor")
    for link in ("predictions", "ticks"):
        with pytest.raises(ConfigError, match="real money.*the executor was started with"):
            allow(config, link)


@pytest.mark.parametrize("link, stage", [("ticks", "ingest"), ("ticks", "ingest-2"), ("predictions", "inference-0")])
def test_nothing_is_injected_beside_the_real_sender(config, run_dir, link, stage):
    fd = lock_file(run_dir / f"stage.{stage}.lock", "x")
    with pytest.raises(InstanceError, match=f"real sender of {link} runs .*{stage}, pid {os.getpid()}"):
        allow(config, link)
    allow(config, "predictions" if link == "ticks" else "ticks")
    os.close(fd)
    allow(config, link)  # the file stays, the lock is gone
