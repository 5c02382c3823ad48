"""Compiled code: called directly it gives the same, its fence is really there, and its cache knows its sources."""

import platform
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import njit

from common.compiled import compiled_fence, direct


@njit
def _sum(values, factor):
    return values.sum() * factor


def test_the_direct_call_gives_the_same_and_keeps_to_its_types():
    values = np.arange(5)
    call = direct(_sum, values, 2)
    assert call(values, 3) == _sum(values, 3) == 30
    with pytest.raises(TypeError):
        call("values", 3)


def test_asking_twice_gives_the_same_code():
    assert direct(_sum, np.arange(5), 2) is direct(_sum, np.arange(9), 1)


def test_a_plain_function_is_left_as_it_is():
    assert direct(_sum.py_func, np.arange(2), 1) is _sum.py_func


def test_the_fence_is_compiled_in():
    @njit
    def store(array):
        array[0] = 1
        compiled_fence()
        array[1] = 2

    array = np.zeros(2, np.int64)
    store(array)
    assert array.tolist() == [1, 2]
    assert "fence seq_cst" in next(iter(store.inspect_llvm().values()))
    if platform.machine() != "x86_64":
        pytest.skip("the instruction is known for x86-64 only")
    machine_code = next(iter(store.inspect_asm().values()))
    assert "mfence" in machine_code or "lock" in machine_code


def test_the_cache_is_named_after_all_that_the_kernels_are_made_of():
    import common
    from common.compiled import _MADE_OF

    folder = Path(common.__file__).parent
    assert Path(numba.config.CACHE_DIR).parent == folder / "__pycache__"
    kernels = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if "@kernel" in path.read_text()}
    assert kernels <= set(_MADE_OF)


def test_loading_kernels_does_not_load_scipy():
    program = ("import sys; from common.features.rows import warm_up; warm_up(); "
               "assert 'scipy.linalg' not in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).resolve().parents[2])
