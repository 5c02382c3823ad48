"""Blocks: one writer, many readers, nothing left, no surprise when a process is killed."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from common import shm
from common.errors import InstanceError, LayoutError, ResourceError
from common.shm import Block

ABOUT = {"ring": "test", "width": 3}


def script(text: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(text), *arguments], stdout=subprocess.PIPE,
                            stdin=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])


WRITER = """
    import sys, numpy as np
    from common.shm import Block
    block = Block.create(sys.argv[1], "b", 4096, {"ring": "test", "width": 3})
    block.array(np.int64, (8,))[:] = 7
    print(block.generation, flush=True)
    sys.stdin.read()
    block.remove()
"""


@pytest.fixture
def writer(instance):
    process = script(WRITER, instance)
    assert process.stdout.readline() == "1\n"
    yield process
    process.communicate()  # the end of its input is its sign to stop


def test_a_reader_sees_what_the_writer_wrote_and_cannot_write(instance, writer):
    view = Block.attach(instance, "b", ABOUT).array(np.int64, (8,))
    assert view.tolist() == [7] * 8
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_a_second_writer_is_refused_and_told_who_is_first(instance, writer):
    with pytest.raises(InstanceError, match=f"pid {writer.pid}"):
        Block.create(instance, "b", 4096, ABOUT)


def test_another_description_is_named_on_both_sides(instance, writer):
    with pytest.raises(LayoutError, match=r'width \(there: 3; here: 4\)'):
        Block.attach(instance, "b", {**ABOUT, "width": 4})


def test_a_killed_writer_leaves_its_block_and_the_next_one_continues_it(instance, writer):
    reader = Block.attach(instance, "b")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    again = Block.create(instance, "b", 4096, ABOUT)
    assert again.generation == 2 and again.epoch == reader.epoch
    again.array(np.int64, (8,))[0] = 9
    assert reader.array(np.int64, (8,))[0] == 9 and reader.writer_pid == os.getpid()
    again.remove()


def test_a_block_of_another_layout_replaces_the_old_one_and_readers_notice(instance):
    old = Block.create(instance, "b", 4096, ABOUT)
    reader = Block.attach(instance, "b")
    old_lock, old._lock_fd = old._lock_fd, None
    os.close(old_lock)  # as if its writer had been killed
    fresh = Block.create(instance, "b", 8192, {**ABOUT, "width": 4})
    assert reader.retired and not fresh.retired and Block.attach(instance, "b").epoch == fresh.epoch
    fresh.remove()
    assert shm.leaked(instance) == []


def test_a_reader_that_ends_takes_nothing_with_it(instance, writer):
    reader = script("""
        import sys
        from common.shm import Block
        Block.attach(sys.argv[1], "b")
    """, instance)
    assert reader.wait() == 0
    assert shm.leaked(instance) == [shm.block_name(instance, "b")]


def test_no_resource_tracker_is_started(instance):
    process = script("""
        import sys
        from common.shm import Block
        block = Block.create(sys.argv[1], "b", 4096, {})
        Block.attach(sys.argv[1], "b")
        from multiprocessing import resource_tracker
        print(resource_tracker._resource_tracker._pid)
        block.remove()
    """, instance)
    assert process.communicate()[0] == "None\n"


def test_a_reader_that_cannot_map_does_not_unlink(instance, writer):
    reader = script("""
        import sys, mmap
        from multiprocessing import shared_memory
        from common.shm import Block
        def refuse(*_): raise OSError(12, "no memory")
        shared_memory.mmap.mmap = refuse
        try:
            Block.attach(sys.argv[1], "b")
        except OSError as error:
            print(error.errno)
    """, instance)
    assert reader.communicate()[0] == "12\n"
    assert shm.leaked(instance)


def test_sweep_removes_what_killed_writers_left_and_spares_the_living(instance, writer):
    assert shm.sweep(instance) == []
    writer.kill()
    writer.wait()
    assert shm.sweep(instance) == [shm.block_name(instance, "b")]
    assert shm.leaked(instance) == []


def test_too_little_memory_is_an_error_at_creation_and_leaves_nothing(instance):
    free = os.statvfs("/dev/shm")
    with pytest.raises(ResourceError, match="MiB needed.*MiB free"):
        Block.create(instance, "b", free.f_bavail * free.f_frsize + 2**30, ABOUT)
    assert shm.leaked(instance) == []


def test_a_file_that_is_not_ours_is_refused(instance):
    path = shm.SHM_DIR / shm.block_name(instance, "b")
    path.write_bytes(b"something else" * 100)
    try:
        with pytest.raises(LayoutError, match="not one of ours"):
            Block.attach(instance, "b")
    finally:
        path.unlink()


def test_attaching_again_and_again_keeps_no_descriptor(instance):
    block = Block.create(instance, "books", 4096, {"ring": "test"})
    reader = Block.attach(instance, "books")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        reader = Block.attach(instance, "books")
    assert len(os.listdir("/proc/self/fd")) == before and reader.array(np.uint8, (4096,)).sum() == 0
    block.remove()


def test_what_only_looks_like_a_block_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(shm, "SHM_DIR", tmp_path)
    (tmp_path / f"alpha-{os.getuid()}-other").write_bytes(b"x")
    assert shm.survey() == []
