"""docs/logs.md, generated from the log calls in the sources of the worker and the page."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "logs.md"
_ROOT: Final = Path(__file__).parents[1]
_SOURCES: Final = (_ROOT / "dashboard", _ROOT / "worker")
METHODS: Final = frozenset({"debug", "info", "warning", "error", "critical", "exception"})
LOGGERS: Final = frozenset({"log", "_log", "logger", "_logger"})
_RENDERED: Final = {"exc_info": "exception"}
_HEAD: Final = """# Logs

<!-- written by `make docs` from the sources and deploy/logs_page.py; do not edit -->

The worker, `callmood dashboard` and `callmood webhooks` log to standard error. With `CALLMOOD_LOG__FORMAT=json`, each
line is one JSON object; `auto` gives readable text on a terminal and JSON elsewhere. Every line has `event`, `level`,
`timestamp` (UTC) and `process` (`supervisor`, `ingest-0`, `inference`, `projector`, `dashboard`, `webhooks`). The event
is one of the constants below; the other fields have the values. [Operations](operations.md#alerts) explains how to
handle errors.

The worker writes one line per utterance and one per dead-letter record, but no line per audio record. Logs never
contain audio, payloads, phone numbers, credentials or call ids: `call` is a hash of the id. Lines with other events
come from libraries and are about their connections.

| event | level | fields |
| --- | --- | --- |
"""
_FIELDS: Final = {
    "action": "`call opened`, `call refused` or `alert claimed`",
    "attempt": "number of this attempt to send the alert, from 1",
    "assigned": "number of partitions that this process has gained",
    "batch_seconds": "new maximum audio per batch, including padding, in s",
    "call": "hash of the call id, 12 hex digits",
    "calls": "number of live calls whose state was restored",
    "compiled": "whether the code that handles each record is compiled (`docs/capacity.md`)",
    "confidence": "probability of the label, 0 to 1",
    "detail": "problem with the record, without its content",
    "device": "device that runs the model",
    "dtype": "number format of the model's matrix products: fp32, bf16, int8 or int8+bf16",
    "end_ms": "end of the utterance, in ms on the call's time line",
    "error": "the problem, and the remedy if it is known",
    "exception": "the exception, with its traceback",
    "exit_code": "exit code of the process; negative: the signal that ended it, such as -9 for SIGKILL",
    "exits": "number of unexpected exits of a process within `window_s` at which the worker stops",
    "has_group_offset": "true: reading continues at the consumer group's offset; false: at the oldest record",
    "hook": "name of the webhook",
    "health_port": "port of /livez, /readyz and /metrics",
    "key": "key in Redis; `*` stands for the call id",
    "kind": "class of the error",
    "label": "the emotion; `abstained`; or the reason why there is none, as in schemas/README.md",
    "latency_ms": "time from the capture of the last sample to the commit, in ms",
    "looks_like": "the encoding that the audio seems to have, or `swapped_bytes`",
    "lost": "number of records that were deleted or skipped, or of keys or calls that the store has lost",
    "max_error": "largest error of a probability in the self-test at start, 0 to 1",
    "name": "name of the process",
    "number": "number of the utterance in its call, from 1",
    "offset": "offset of the record, of the group, or at which reading waits",
    "other_partition": "the second partition with the same call id",
    "packed": "whether the engine computes without padding",
    "partition": "partition of the audio topic, or of `topic`",
    "pid": "process id",
    "policy": "values of the settings in the group `policy`",
    "reason": "dead-letter record: a reason in schemas/README.md; call ended: `end_reason` in schemas/redis.md; "
    "takeover: why the partition is not ready",
    "revoked": "number of partitions that this process has lost",
    "role": "role of the speaker",
    "rule": "name of the alert rule",
    "stall_s": "time without progress after which the worker stops, in s",
    "start_ms": "start of the utterance, in ms on the call's time line",
    "threads": "threads that compute the model on a CPU",
    "topic": "topic of the event",
    "user": "name in the access file, name from the proxy, or address of the viewer",
    "utterances": "number of utterances in the batch",
    "value": "the measured value that raised the alert",
    "watermark": "offset from which the worker reads the partition",
    "what": "kind of the keys: states, utterances or aggregates",
    "window_s": "period in which the exits of a process are counted, in s",
}


class Line(NamedTuple):
    """One log call in the sources."""

    event: str
    level: str
    fields: tuple[str, ...]


class NotConstantError(ValueError):
    """A log call whose event or fields cannot be read from the sources."""


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The log calls of a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr=method)) if (
                name in LOGGERS and method in METHODS
            ):
                yield node
            case _:
                pass


def lines(tree: ast.AST) -> Iterator[Line]:
    """The log lines that a module can write.

    Raises:
        NotConstantError: an event is built at run time, so that operators could not search for it.
    """
    for call in calls(tree):
        assert isinstance(call.func, ast.Attribute)
        method = call.func.attr
        level, own = ("error", ("exception",)) if method == "exception" else (method, ())
        if len(call.args) != 1:
            raise NotConstantError(f"line {call.lineno}: the event is interpolated; put the values into fields")
        for event in _events(call.args[0]):
            yield Line(event, level, (*_fields(call), *own))


def _events(node: ast.expr) -> list[str]:
    """The constant event, or each of those that a conditional expression chooses from."""
    match node:
        case ast.IfExp():
            return _events(node.body) + _events(node.orelse)
        case ast.Constant(value=str(event)) if "%" not in event and "{" not in event:
            return [event]
        case _:
            raise NotConstantError(f"line {node.lineno}: the event is not a constant string")


def _fields(call: ast.Call) -> Iterator[str]:
    """Names of the fields: keywords, and with the standard library's logging the keys of `extra`."""
    for keyword in call.keywords:
        match keyword:
            case ast.keyword(arg="extra", value=ast.Dict(keys=keys)):
                for key in keys:
                    if not isinstance(key, ast.Constant):
                        raise NotConstantError(f"line {call.lineno}: a field of `extra` has no constant name")
                    yield str(key.value)
            case ast.keyword(arg="extra" | None):
                raise NotConstantError(f"line {call.lineno}: the names of the fields are not written here")
            case ast.keyword(arg=str(name)):
                yield _RENDERED.get(name, name)


def every() -> Iterator[Line]:
    """All log lines of the worker, file by file."""
    for path in sorted(path for folder in _SOURCES for path in folder.rglob("*.py")):
        try:
            yield from lines(ast.parse(path.read_text(encoding="utf-8")))
        except NotConstantError as error:
            raise NotConstantError(f"{path.relative_to(_ROOT)}, {error}") from None


def page() -> str:
    """The content of docs/logs.md.

    Raises:
        NotConstantError: an event is not a constant.
        KeyError: a field that `_FIELDS` does not explain.
    """
    found = sorted(set(every()))
    rows = [
        f"| {line.event} | {line.level} | {', '.join(f'`{name}`' for name in line.fields) or 'none'} |\n"
        for line in found
    ]
    used = sorted({name for line in found for name in line.fields})
    meanings = [f"| `{name}` | {_FIELDS[name]} |\n" for name in used]
    return "".join([_HEAD, *rows, "\n| field | meaning |\n| --- | --- |\n", *meanings])
