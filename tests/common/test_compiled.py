"""Machine code called directly gives what the kernel gives."""

import numpy as np
import pytest
from numba import njit

from common.compiled import direct


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
