"""The fence of compiled code is really in the machine code."""

import platform

import pytest
from numba import njit

from common.fence import compiled_fence


def test_the_fence_is_compiled_in():
    @njit
    def store(array):
        array[0] = 1
        compiled_fence()
        array[1] = 2

    import numpy as np

    array = np.zeros(2, np.int64)
    store(array)
    assert array.tolist() == [1, 2]
    assert "fence seq_cst" in next(iter(store.inspect_llvm().values()))
    if platform.machine() != "x86_64":
        pytest.skip("the instruction is known for x86-64 only")
    machine_code = next(iter(store.inspect_asm().values()))
    assert "mfence" in machine_code or "lock" in machine_code
