"""Log lines: JSON for machines, and nothing in them that should not be there."""

import json
import logging

import pytest
import structlog
from kafka.errors import Cancelled, NodeNotReadyError, UnstableOffsetCommitError

from callmood.worker import logs
from callmood.worker.settings import LogSettings


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_time_level_and_process(capsys):
    """Each event is one JSON object on stderr."""
    logs.configure(LogSettings(format="json"), process="ingest-0")
    structlog.get_logger().info("restored", partition=3)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "restored", "partition": 3, "level": "info", "process": "ingest-0"}


def test_what_is_below_the_level_is_not_written(capsys):
    """The level holds for our lines, and libraries warn at least."""
    logs.configure(LogSettings(format="json", level="warning"), process="x")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("some.library").info("quiet")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_libraries_write_the_same_lines(capsys):
    """A warning of a library is a JSON line too; the chatty Kafka client says errors only."""
    logs.configure(LogSettings(format="json"), process="x")
    logging.getLogger("some.library").warning("disk %s", "full")
    logging.getLogger("kafka.conn").warning("reconnecting")
    logging.getLogger("kafka.conn").error("refused")
    assert [(line["event"], line["level"]) for line in lines(capsys)] == [
        ("disk full", "warning"),
        ("refused", "error"),
    ]


def test_what_kafka_python_calls_an_error_and_is_none_has_no_line(capsys):
    """A request that closing cancels, and an offset that an open transaction holds."""
    logs.configure(LogSettings(format="json"), process="x")
    logging.getLogger("kafka.cluster").error("Metadata refresh: failed %s", Cancelled())
    logging.getLogger("kafka.coordinator.consumer").error(
        "Unknown error fetching offsets: %s", UnstableOffsetCommitError()
    )
    logging.getLogger("kafka.cluster").error("Metadata refresh: failed %s", NodeNotReadyError("metadata"))
    assert [line["event"] for line in lines(capsys)] == ["Metadata refresh: failed NodeNotReadyError: metadata"]


def test_the_fields_of_a_library_s_line_are_fields(capsys):
    """What the engine logs by the standard library, as `extra`, is beside its event like any other field."""
    logs.configure(LogSettings(format="json"), process="x")
    logging.getLogger("some.library").warning("out of memory", extra={"utterances": 16})
    (line,) = lines(capsys)
    assert (line["event"], line["utterances"]) == ("out of memory", 16)


def test_a_traceback_is_part_of_its_line(capsys):
    """An exception does not tear a JSON log apart."""
    logs.configure(LogSettings(format="json"), process="x")
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("stopping")
    (line,) = lines(capsys)
    assert "ValueError: invalid literal" in line["exception"]


def test_on_a_terminal_lines_are_for_people(capsys):
    """The console format is text, and `auto` is JSON where stderr is no terminal."""
    logs.configure(LogSettings(format="console"), process="x")
    structlog.get_logger().info("hello", number=1)
    assert "hello" in (text := capsys.readouterr().err)
    assert not text.startswith("{")
    logs.configure(LogSettings(format="auto"), process="x")
    structlog.get_logger().info("hello")
    assert lines(capsys)[0]["event"] == "hello"


def test_a_call_id_is_hashed():
    """A call id may be a telephone number: the same id gives the same 12 digits, another one others."""
    assert logs.call_hash("+491701234567") == logs.call_hash("+491701234567") != logs.call_hash("+491701234568")
    assert len(logs.call_hash("+491701234567")) == 12
