"""The screen, driven by textual's own pilot: keys, sizes, and dialogs that really pull the switch."""

import asyncio
import contextlib
import json
import time

import pytest

from common import config as settings
from common import killswitch
from common.alerts import Alert
from common.ring import Books
from common.risk import FLATTENING
from common.telemetry import Telemetry
from common.watch.watched import Watched
from procs.executor import COUNTERS, TIMERS
from procs.top_screen import Confirm, Help, Picture, Top
from tests.ticks import write_ticks


@contextlib.contextmanager
def standing(instance, tmp_path, run_dir):
    """An executor's telemetry and a ring, as if they ran; gives the configuration and the telemetry."""
    config = settings.load(None, {"ALPHA_INSTANCE__NAME": instance, "ALPHA_INSTANCE__STATE_DIR": str(tmp_path),
                                  "ALPHA_INSTANCE__RUN_DIR": str(run_dir), "ALPHA_MARKET__SYMBOLS": '["A", "B"]',
                                  "ALPHA_EXECUTOR__GATEWAY": "paper"})
    books = Books.create(instance, ["A", "B"], 1024)
    executor = Telemetry.create(instance, "executor", COUNTERS, TIMERS)
    try:
        write_ticks(books, 0, 50, now_ns=time.monotonic_ns())
        executor.tell({"state": "ACTIVE", "why": "", "gateway": "paper"})
        executor.set("ready", 1)
        executor.add("decisions", 4321)
        yield config, executor
    finally:
        executor.close()
        books.close()


@pytest.fixture
def drive(instance, tmp_path, run_dir):
    """Runs `steps(app, pilot, executor, state folder)` with the screen of a size."""
    def drive(steps, size=(80, 24)) -> None:
        async def run(config, executor, watched) -> None:
            app = Top(config, watched)
            async with app.run_test(size=size) as pilot:
                await steps(app, pilot, executor, config.state_dir)

        with standing(instance, tmp_path, run_dir) as (config, executor):
            watched = Watched(config)
            try:
                asyncio.run(run(config, executor, watched))
            finally:
                watched.close()

    return drive


def shown(app: Top) -> str:
    return app.screen_stack[0].query_one(Picture).render().plain


async def until(pilot, condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await pilot.pause(0.02)


def test_it_shows_the_pipeline_and_goes_with_the_size(drive):
    async def steps(app, pilot, executor, folder):
        small = shown(app)
        assert "ACTIVE" in small and "4,321" in small and len(small.splitlines()) <= 23
        await pilot.resize_terminal(140, 50)
        await pilot.pause()
        large = shown(app)
        assert len(large.splitlines()) > len(small.splitlines()) and max(map(len, large.splitlines())) > 80
        await pilot.resize_terminal(30, 8)
        await pilot.pause()
        assert "ACTIVE" in shown(app)

    drive(steps)


def test_a_pause_holds_the_picture_and_the_next_key_lets_it_go_on(drive):
    async def steps(app, pilot, executor, folder):
        await pilot.press("p")
        executor.add("decisions", 1000)
        app.look()
        assert "4,321" in shown(app) and "PAUSED" in shown(app)
        await pilot.press("p")
        assert "5,321" in shown(app) and "PAUSED" not in shown(app)

    drive(steps)


def test_symbols_are_gone_through_one_by_one_and_back_to_all(drive):
    async def steps(app, pilot, executor, folder):
        seen = []
        for key in ("s", "tab", "s"):
            await pilot.press(key)
            seen.append(app.selected)
        assert seen == ["A", "B", ""]
        await pilot.press("s")
        assert "> A" in shown(app)

    drive(steps)


def test_help_is_shown_and_any_key_closes_it(drive):
    async def steps(app, pilot, executor, folder):
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        await pilot.press("h")
        assert not isinstance(app.screen, (Help, Confirm)) and killswitch.state(folder) is None

    drive(steps)


@pytest.mark.parametrize("key", ["n", "escape", "q", "enter"])
def test_a_halt_that_is_not_confirmed_does_nothing(drive, key):
    async def steps(app, pilot, executor, folder):
        await pilot.press("h")
        assert isinstance(app.screen, Confirm)
        await pilot.press(key)
        await pilot.pause()
        assert killswitch.state(folder) is None and app.is_running
        assert isinstance(app.screen, Confirm) == (key == "enter")

    drive(steps)


def test_halt_and_resume_once_confirmed_work_the_switch(drive):
    async def steps(app, pilot, executor, folder):
        await pilot.press("u")
        assert not isinstance(app.screen, Confirm)  # nothing to lift
        await pilot.press("h", "y")
        await until(pilot, lambda: killswitch.state(folder))
        assert killswitch.state(folder).why == "by hand, in alpha top"
        executor.set("halted", 1)  # the executor obeys, and says so
        executor.set("heartbeat_ns", time.monotonic_ns())
        executor.tell({"state": "HALTED", "why": "by hand, in alpha top (by quant)"})
        await until(pilot, lambda: not app.workers._workers)
        app.look()
        assert "HALTED  by hand, in alpha top" in shown(app)
        await pilot.press("u")
        assert isinstance(app.screen, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: killswitch.state(folder) is None)

    drive(steps)


def test_an_executor_that_does_not_confirm_is_told_and_working_orders_are_seen_to(drive):
    async def steps(app, pilot, executor, folder):
        executor.set("ready", 0)
        executor.set("heartbeat_ns", 1)
        await pilot.press("h", "y")
        await until(pilot, lambda: any("no executor confirms" in note.message for note in app._notifications))
        assert killswitch.state(folder) is not None

    drive(steps)


def test_reduce_once_confirmed_lets_only_what_shrinks_leave(drive):
    async def steps(app, pilot, executor, folder):
        await pilot.press("r", "y")
        await until(pilot, lambda: killswitch.reduction(folder))
        assert not killswitch.reduction(folder).flatten and killswitch.state(folder) is None

    drive(steps)


def test_flatten_once_confirmed_leaves_every_position(drive):
    async def steps(app, pilot, executor, folder):
        await pilot.press("f")
        assert isinstance(app.screen, Confirm) and killswitch.reduction(folder) is None
        await pilot.press("y")
        await until(pilot, lambda: killswitch.reduction(folder))
        assert killswitch.reduction(folder).flatten and killswitch.state(folder) is None
        executor.set("reducing", FLATTENING)
        executor.tell({"state": "FLATTENING", "why": "by hand, in alpha top (by quant)"})

        def told() -> bool:
            executor.set("heartbeat_ns", time.monotonic_ns())  # a machine that stalls lets it fall silent meanwhile
            app.look()
            return "FLATTENING  by hand, in alpha top" in shown(app)

        await until(pilot, told)

    drive(steps)


@pytest.mark.parametrize("key", ["h", "r", "f"])
def test_in_the_smallest_terminal_a_question_keeps_its_keys(drive, key):
    async def steps(app, pilot, executor, folder):
        await pilot.press(key)
        await pilot.pause()
        lines = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
        assert any("y yes" in line and "n no" in line for line in lines), lines
        assert any("?" in line for line in lines), lines

    drive(steps, (20, 5))


def test_what_is_firing_is_on_the_screen(drive):
    async def steps(app, pilot, executor, folder):
        alert = Alert("stage-silent", "executor", "firing", "critical", 1, 1, "gave no sign of life", None, None, "")
        (folder / "alerts.json").write_text(json.dumps({"firing": [alert._asdict()], "sinks": {}}))
        monitor = Telemetry.create(app._config.instance.name, "monitor", ("received",))
        monitor.set("ready", 1)
        monitor.set("heartbeat_ns", time.monotonic_ns())
        app._watched._next_look = app._watched._next_read = 0.0
        app.look()
        monitor.close()
        assert "CRITICAL since" in shown(app) and "stage-silent executor: gave no sign of life" in shown(app)

    drive(steps, (160, 50))


def test_q_ends_it(drive):
    async def steps(app, pilot, executor, folder):
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)

    drive(steps)
