"""Locks name their holder; run folders are private."""

import os
import stat

import pytest

from common.errors import InstanceError, ResourceError
from common.locks import holder, lock_file, private_folder


def test_a_lock_names_its_holder_and_is_free_after_it(run_dir):
    fd = lock_file(run_dir / "a.lock", "stage a")
    with pytest.raises(InstanceError, match=f"stage a is in use.*pid {os.getpid()}"):
        lock_file(run_dir / "a.lock", "stage a")
    os.close(fd)
    os.close(lock_file(run_dir / "a.lock", "stage a"))


def test_who_looks_for_the_holder_does_not_become_it(run_dir):
    path = run_dir / "a.lock"
    assert holder(path) is None
    fd = lock_file(path, "stage a")
    assert holder(path) == os.getpid()
    os.close(fd)
    assert holder(path) is None and path.exists()
    os.close(lock_file(path, "stage a"))


def test_a_run_folder_is_closed_to_others_even_if_it_was_open(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_run_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError, match="belongs to somebody else"):
        private_folder(tmp_path / "run")
