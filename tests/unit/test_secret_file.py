"""A secret that may be replaced while we run, and files that only the clients read."""

from pathlib import Path

import pytest

from callmood.worker.adapters.secret_file import SecretFile, require_file
from callmood.worker.errors import ConfigurationError


def test_it_is_read_again_each_time(tmp_path):
    """The newest content counts, without the line's end; while the file is away or empty, the one before."""
    path = tmp_path / "secret"
    path.write_text("one\n")
    secret = SecretFile("VARIABLE", path)
    assert secret.read() == "one"
    path.write_text("two")
    assert secret.read() == "two"
    path.write_text("")
    assert secret.read() == "two"
    path.unlink()
    assert secret.read() == "two"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"], ids=["none", "empty", "blank", "no text"])
def test_a_file_without_a_secret_is_refused_by_its_variable(tmp_path, content):
    """Who starts a worker without its secret is told which setting is wrong, and where it leads."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"VARIABLE: .*{path}"):
        SecretFile("VARIABLE", path)


def test_it_does_not_show_itself(tmp_path):
    """Neither its text nor its error holds the secret."""
    path = tmp_path / "secret"
    path.write_text("hush")
    assert "hush" not in f"{SecretFile('VARIABLE', path)!r} {SecretFile('VARIABLE', path)}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file"), "X: file ca.pem does not exist"),
        (PermissionError(13, "Permission denied"), "X: cannot read ca.pem: Permission denied"),
        (IsADirectoryError(21, "Is a directory"), "X: cannot read ca.pem: Is a directory"),
    ],
)
def test_a_file_that_no_client_can_read_names_its_setting(monkeypatch, error, words):
    """A certificate that belongs to another user, as a secret in Kubernetes often does, is no broker that is down."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ConfigurationError) as caught:
        require_file("X", Path("ca.pem"))
    assert str(caught.value) == words


def test_a_file_that_can_be_read_is_accepted():
    """Nothing of it is kept."""
    require_file("X", Path(__file__))
