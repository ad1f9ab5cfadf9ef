"""What a worker says of itself."""

from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec

import pytest

from callmood.worker.run import compiled


@pytest.mark.parametrize(
    ("file", "expected"), [("segment.py", False), ("segment.pyc", False), (f"segment{EXTENSION_SUFFIXES[0]}", True)]
)
def test_a_worker_knows_whether_it_is_compiled(monkeypatch, file, expected):
    """By the file that Python would import."""
    monkeypatch.setattr(compiled, "find_spec", lambda name: ModuleSpec(name, None, origin=f"/opt/{file}"))
    assert compiled.is_compiled() is expected
