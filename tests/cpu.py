"""What this CPU can do, by the product's own answer. tests/cpus.py makes one CPU behave like smaller ones.

A test that needs an instruction set is skipped without it, and a test of the refusal runs exactly there.
"""

import pytest

from callmood.worker.engine import bf16, int8
from callmood.worker.engine.plan import INT8

needs_int8 = pytest.mark.skipif(not int8.is_available(), reason="this CPU has no products in int8")
without_int8 = pytest.mark.skipif(int8.is_available(), reason="this CPU has products in int8: none to refuse")
needs_bf16 = pytest.mark.skipif(not bf16.is_available(), reason="this CPU has no products in bfloat16")
without_bf16 = pytest.mark.skipif(bf16.is_available(), reason="this CPU has products in bfloat16: none to do without")


def marks(dtype):
    """Marks of a test of this type: it is skipped where the product refuses the type."""
    return [needs_int8] if dtype in INT8 else []


def dtypes(*names):
    """Parameters of a test of these types."""
    return [pytest.param(name, marks=marks(name)) for name in names]
