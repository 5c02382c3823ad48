"""The laws of the house, read from the imports."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for folder in ("common", "procs", "models") for path in (ROOT / folder).rglob("*.py"))
STAGES = {"exchange", "ingest", "feature", "inference", "executor", "monitor"}
#: a library that talks to the outside, and the only modules that may import it
OWNERS = {"zmq": {"common/links.py"}, "multiprocessing": {"common/shm.py"}, "onnxruntime": {"common/model.py"},
          "matplotlib": {"common/capture_plot.py", "common/backtest/plot.py", "common/explain/plot.py",
                         "common/figures.py"},
          "sqlite3": {f"common/journal/{name}.py" for name in ("checks", "file", "reader", "state", "writer")}}
#: modules of the pure core: no sockets, no clock, no files
PURE = {"alerts", "backoff", "backtest/report", "book", "calibration", "capture_lines", "decide", "decision",
        "dispatch", "drift", "events", "exits", "explain/context", "explain/day", "explain/day_html", "explain/order",
        "explain/text", "expressions", "faults", "features/choice", "features/kernel", "features/kernel_book",
        "features/kernel_flow", "features/kernel_state", "features/kernel_time", "features/table", "fitting", "fixed",
        "folds", "journal/log", "labels", "layout", "ledger", "log_lines", "market", "matching", "orders", "outcomes",
        "player", "positions", "queue_model", "reconciliation", "repeats", "risk", "scan", "signing", "sizing", "skew",
        "synthetic", "tap_rates", "tap_records", "today", "watch/access", "watch/health", "wire"}
#: declarations only: nothing that could be run
UNTESTED = {"__init__.py", "events.py"}
IMPURE = {"socket", "ssl", "time", "asyncio", "threading", "subprocess", "sqlite3", "zmq", "pathlib"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Every module named in an import of `path`, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_common_never_imports_procs(path):
    if name_of(path).startswith("common/"):
        assert not [name for name in imports(path) if name.partition(".")[0] in ("procs", "models", "tests")]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_stages_never_import_one_another(stage):
    others = {f"procs.{other}" for other in STAGES - {stage}}
    assert not others & imports(ROOT / "procs" / f"{stage}.py")


@pytest.mark.parametrize("library, owners", OWNERS.items())
def test_outside_libraries_are_imported_by_their_owners_alone(library, owners):
    users = {name_of(path) for path in MODULES
             if any(name.partition(".")[0] == library for name in imports(path))}
    # The article's architecture, run as a reference, is built on multiprocessing by design.
    assert users - {"procs/bench/article.py"} <= owners


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_core_is_pure(module):
    path = ROOT / "common" / f"{module}.py"
    assert not {name.partition(".")[0] for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", [path for path in MODULES if path.name not in UNTESTED], ids=name_of)
def test_every_module_is_tested_by_the_file_that_mirrors_it(path):
    mirrored = ROOT / "tests" / path.relative_to(ROOT).with_name(f"test_{path.name}")
    folder = ROOT / "tests" / path.relative_to(ROOT).parent / f"test_{path.parent.name}.py"  # a contract for all
    assert mirrored.exists() or folder.exists(), f"write {mirrored.relative_to(ROOT)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "a module opens with its docstring"


def test_lines_are_no_longer_than_they_should_be():
    long = [f"{name_of(path)}:{number}" for path in MODULES
            for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert not long


def test_the_top_level_is_as_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    agreed = {"setup.cfg", "pyproject.toml", "procs", "common", "tests", "models", "supervisord.conf", "README.md",
              "Makefile", "requirements.lock", "alpha.toml"}
    assert {name for name in top if not name.startswith(".")} <= agreed
