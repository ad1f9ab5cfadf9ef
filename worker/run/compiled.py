"""Whether the code that handles each record is compiled here (`setup.py`)."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


def is_compiled() -> bool:
    """Whether Python imports the compiled form of that code; the worker does the same without it, but slower."""
    spec = find_spec("callmood.worker.speech.segment")
    return spec is not None and (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES))
