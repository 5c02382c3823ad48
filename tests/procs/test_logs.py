"""alpha logs: of all stages, chosen, and followed while they are written."""

import json
import signal
import threading
import time

import pytest
from click.testing import CliRunner

from common.log_lines import Event, as_json
from procs.cli import main
from tests.common.test_log_files import rotate
from tests.pipeline import command, environment
from tests.waiting import until

S = 10**9


@pytest.fixture
def env(instance, tmp_path, run_dir):
    (tmp_path / "log").mkdir()
    return environment(instance, tmp_path, run_dir)


def put(folder, stage: str, text: str, level: str = "info", age_s: float = 0.0, **fields) -> None:
    told = Event(time.time_ns() - int(age_s * S), level, stage, text, 7, fields=fields)
    with (folder / "log" / f"{stage}.log").open("a") as file:
        file.write(as_json(told) + "\n")


def shown(env, *arguments: str) -> list[str]:
    found = CliRunner().invoke(main, ["logs", *arguments], env=env)
    assert found.exit_code == 0, found.output
    return found.stdout.splitlines()


def test_events_are_merged_and_chosen(env, tmp_path):
    put(tmp_path, "executor", "order A rejected", "warning", 700)
    put(tmp_path, "executor", "halted", "error", 3, symbol="AAPL")
    put(tmp_path, "inference-1", "ready", age_s=5)
    assert [line.split(" ", 1)[1] for line in shown(env)] == [
        "WARNING executor order A rejected", "INFO    inference-1 ready", "ERROR   executor halted symbol=AAPL"]
    assert len(shown(env, "executor")) == 2 and len(shown(env, "inference")) == 1
    assert len(shown(env, "--level", "warning")) == 2 and len(shown(env, "--since", "10m")) == 2
    assert len(shown(env, "--grep", "REJECTED")) == len(shown(env, "--grep", "aapl")) == 1
    assert len(shown(env, "-n", "2")) == 2 and "halted" in shown(env, "-n", "1")[0]
    told = json.loads(shown(env, "--json", "--level", "error")[0])
    assert (told["event"], told["symbol"], told["pid"]) == ("halted", "AAPL", 7)
    assert "\x1b" not in "".join(shown(env))  # no terminal, no colours


def test_where_nothing_is_to_be_read_it_says_so(env):
    found = CliRunner().invoke(main, ["logs", "nonsense"], env=env)
    assert found.exit_code == 7 and "no log of nonsense" in found.stderr


def test_following_goes_on_across_renaming_and_finds_new_stages(env, tmp_path):
    for k in range(30):
        put(tmp_path, "executor", f"before {k}")
    process = command("logs", "-f", "--level", "info", env=env)
    lines: list[str] = []
    threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True).start()
    until(lambda: len(lines) == 20, 30, "the last lines")
    put(tmp_path, "executor", "after 0")
    put(tmp_path, "executor", "not shown", "debug")
    rotate(tmp_path / "log" / "executor.log")
    put(tmp_path, "executor", "after 1")
    put(tmp_path, "feature", "a new stage")
    until(lambda: len(lines) == 23, 30, "what came")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    texts = [line.strip().partition(" executor ")[2] for line in lines if " executor " in line]
    assert texts == [*(f"before {k}" for k in range(10, 30)), "after 0", "after 1"]
    assert any("feature a new stage" in line for line in lines)
