"""The files that commands read."""

import pytest

from callmood.worker.commands.text_file import read_text
from callmood.worker.errors import ConfigurationError


def test_a_file_is_read_as_utf_8(tmp_path):
    """Whatever the locale says."""
    (tmp_path / "rules.toml").write_bytes("# Ärger".encode())
    assert read_text(tmp_path / "rules.toml") == "# Ärger"


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"\xff", "is not UTF-8")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, words):
    """The error names the path and the reason."""
    path = tmp_path / "rules.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"rules\.toml.*{words}"):
        read_text(path)
