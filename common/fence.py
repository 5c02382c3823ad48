"""A memory fence for compiled code: what is stored before it is seen before what is stored after it.

The writers of the rings put one between a record and its sequence stamp, so that neither the compiler nor
the processor (ARM reorders stores, x86-64 does not) can publish a stamp before its record. Python code uses
`common.shm.fence`.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def compiled_fence(typing_context):
    """A sequentially consistent LLVM fence. Cost: a few ns on x86-64."""

    def generate(context, builder: ir.IRBuilder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
