"""Fixtures that all tests share."""

import logging
import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The suite tries the same examples each time, so that what fails is what was changed. New ones are looked for with
# `pytest -m hypothesis --hypothesis-profile search`, and what that finds becomes an @example. No example has a time
# limit: machines are noisy, and first calls compile.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", settings.get_profile("suite"), derandomize=False, max_examples=1000,
                          print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded market data: $ALPHA_RECORDINGS, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("ALPHA_RECORDINGS", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}")
    return folder


@pytest.fixture
def instance():
    """The name of an instance of this test's own; nothing of it may be left in shared memory."""
    from common import shm

    name = f"t{os.getpid()}-{uuid.uuid4().hex[:8]}"
    yield name
    left = shm.leaked(name)
    shm.sweep(name)
    assert left == []


@pytest.fixture(autouse=True)
def as_it_was():
    """What a command changes of its process, and a test with it: the mask of new files, and where logs go."""
    root = logging.getLogger()
    mask, handlers, level = os.umask(0o022), root.handlers[:], root.level
    os.umask(mask)
    yield
    os.umask(mask)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def run_dir():
    """A folder for sockets: short enough for a socket's path, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="at"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
