"""Log events are constants, so that an operator can search for them."""

import ast

import pytest

from deploy.logs_page import LOGGERS, METHODS, NotConstantError, lines


def worker_modules(modules):
    """The modules of the worker and of the page."""
    return {path: tree for path, tree in modules.items() if path.parts[0] in {"worker", "dashboard"}}


def test_every_log_event_is_a_constant_in_lower_case(modules):
    """Each event of the worker is a constant in lower case without a full stop."""
    events = {line.event for tree in worker_modules(modules).values() for line in lines(tree)}
    assert len(events) >= 20
    assert {event for event in events if event != event.lower() or event.endswith(".")} == set()


def test_every_logger_has_a_name_that_the_check_knows(modules):
    """A logger is bound to one of the names in `LOGGERS`, and nothing logs by `logging.info` and its like."""
    bound = set()
    for tree in worker_modules(modules).values():
        for node in ast.walk(tree):
            match node:
                case (
                    ast.Assign(targets=[target], value=ast.Call(func=made))
                    | ast.AnnAssign(target=target, value=ast.Call(func=made))
                ) if ast.unparse(made) in {"logging.getLogger", "structlog.get_logger"}:
                    bound.add(ast.unparse(target))
                case ast.Call(func=ast.Attribute(value=ast.Name(id="logging"), attr=method)):
                    assert method not in METHODS
                case _:
                    pass
    assert "log" in bound
    assert bound - LOGGERS <= {"root"}  # worker/logs.py configures the root logger


@pytest.mark.parametrize(
    "call",
    [
        'log.info(f"took {seconds} s")',
        'log.info("took %s s", seconds)',
        'log.info("took %s s" % seconds)',
        'log.info("took {} s".format(seconds))',
        "log.info(event)",
        'log.info("took " + str(seconds))',
        '_log.warning("slow", extra=fields)',
        'log.info("slow", **fields)',
        'self._log.error("slow: %s", seconds)',
    ],
)
def test_an_event_that_is_built_at_run_time_is_refused(call):
    """An f-string, an interpolation, a variable, and fields without written names raise an error."""
    with pytest.raises(NotConstantError):
        list(lines(ast.parse(call)))


def test_fields_of_both_kinds_of_loggers_are_found():
    """Keywords of structlog and the keys of the standard library's `extra` are the fields of a line."""
    source = 'log.info("a" if x else "b", size=1)\n_log.warning("c", extra={"dtype": t, "off_by": d}, exc_info=error)'
    assert [(line.event, line.fields) for line in lines(ast.parse(source))] == [
        ("a", ("size",)),
        ("b", ("size",)),
        ("c", ("dtype", "off_by", "exception")),
    ]
