"""The names of processes, and the file of alert rules."""

import multiprocessing

import pytest

from callmood.worker.errors import ConfigurationError
from callmood.worker.run.wiring import alert_rules, supervisor_id
from callmood.worker.settings import AlertSettings


def _tell(answers):
    answers.put(supervisor_id())


def _names(count):
    """The names that this many processes in a row have for the process that started them."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    for _ in range(count):
        process = spawn.Process(target=_tell, args=(answers,))
        process.start()
        process.join()
    return [answers.get() for _ in range(count)]


def test_a_restarted_process_has_the_name_of_its_predecessor():
    """It takes over what that left open; the name says nothing else than who started both."""
    one, other = _names(2)
    assert one == other
    assert one != supervisor_id()
    assert one.isalnum()


def test_rules_in_another_encoding_are_a_wrong_setting(tmp_path):
    """An editor has saved the file as Latin-1: the error names it, and no restart helps."""
    path = tmp_path / "rules.toml"
    path.write_bytes("# \u00fcber".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"rules\.toml is not UTF-8"):
        alert_rules(AlertSettings(rules_file=path))
