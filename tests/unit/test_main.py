"""The `callmood` command itself: help, exit codes, and errors in one line."""

import re
from types import SimpleNamespace

import pytest

import callmood.__main__ as entry
from callmood.worker.errors import ConfigurationError, KafkaUnavailable


def command(error):
    """A command that ends with this error."""

    def run(_):
        raise error

    return SimpleNamespace(add_arguments=lambda _: None, run=run)


@pytest.mark.parametrize(("error", "code"), [(ConfigurationError("set X"), 2), (KafkaUnavailable("no broker"), 75)])
def test_an_error_is_one_line_and_an_exit_code(monkeypatch, capsys, error, code):
    """Every command's errors are printed by one handler, without a traceback."""
    monkeypatch.setattr(entry, "_module", lambda _: command(error))
    assert entry.main(["check"]) == code
    assert capsys.readouterr().err == f"callmood: {error}\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    """An error that nobody has foreseen is not shortened."""
    monkeypatch.setattr(entry, "_module", lambda _: command(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        entry.main(["check"])


def test_help_lists_every_command(capsys):
    """`callmood --help` has a line for each command, and imports none of them."""
    with pytest.raises(SystemExit, match="0"):
        entry.main(["--help"])
    printed = capsys.readouterr().out
    assert [name for name in entry._COMMANDS if not re.search(rf"^    {name}\s", printed, re.MULTILINE)] == []
