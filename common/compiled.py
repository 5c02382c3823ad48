"""Compiled code: the decorator of every kernel, the fence between a record and its stamp, and the direct call.

Machine code is cached beside the source, in a folder named by a hash of all that the kernels are made of: numba
itself looks only at the file that defines a function, and would keep code with the numbers of an older layout.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def _without_scipy() -> Iterator[None]:
    """numba looks for scipy when it is imported, and for its linear algebra when it first loads anything. We compile
    none, and where scipy is installed (for training) a stage would start 0.3 s later for it."""
    hidden = [name for name in ("scipy", "scipy.linalg") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # an import of them fails
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _without_scipy():
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

_HERE = Path(__file__).parent
_MADE_OF = ("compiled.py", "layout.py", "scan.py", "book.py", "market.py", "features/table.py", "features/kernel.py",
            "features/kernel_state.py", "features/kernel_time.py", "features/kernel_flow.py",
            "features/kernel_book.py", "backtest/frames.py", "imports/lobster_rows.py")
_DIGEST = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _MADE_OF)).hexdigest()[:12]
numba.config.CACHE_DIR = str(_HERE / "__pycache__" / f"kernels-{_DIGEST}")

_HOW = {"cache": True, "no_cfunc_wrapper": True, "_nrt": False}
#: the decorator. A kernel owns no memory: its arrays are its caller's, who keeps them alive, so it counts no references
#: to them and to their views (a third of the time of the feature kernel once went into that); it makes no array, and
#: returns none but those it was given. From Python only; nothing in C calls it.
kernel = numba.njit(**_HOW)
ieee_kernel = numba.njit(**_HOW, error_model="numpy")  #: for kernels that look at each divisor themselves
view = numba.njit(inline="always")  #: the decorator of what returns a view, which becomes a part of the kernel


@intrinsic
def compiled_fence(typing_context):
    """For kernels: what is stored before it is seen before what is stored after it.

    A sequentially consistent LLVM fence, so that neither the compiler nor the processor (ARM reorders stores,
    x86-64 does not) publishes a stamp before its record. Some ns. Python code uses `common.shm.fence`."""

    def generate(context, builder: ir.IRBuilder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def direct(function: Callable, *example: Any) -> Callable:
    """The machine code of the kernel `function` for arguments of the types of `example`, with which it is run once.

    A numba function looks at the types of all its arguments in every call, to choose among its specialisations;
    here one is chosen for good, and a call takes 250 ns instead of 450. In return it trusts its caller: only
    dimensions and item sizes are checked, so it is for a module that makes all the arguments itself."""
    with _without_scipy():
        function(*example)
    if not hasattr(function, "get_overload"):  # compilation is switched off, for debugging
        return function
    return function.get_overload(tuple(function.typeof_pyval(value) for value in example))
