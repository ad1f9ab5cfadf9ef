"""docs/logs.md, made of the lines that the worker's sources log."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "logs.md"
_WORKER: Final = Path(__file__).parents[1] / "worker"
_RENDERED: Final = {"exc_info": "exception"}
_HEAD: Final = """# Logs

<!-- written by `make docs` from the sources and deploy/logs_page.py; do not edit -->

On standard error; one JSON object a line with `CALLMOOD_LOG__FORMAT=json`, else for people on a terminal. Each has
`event`, `level`, `timestamp` (UTC) and `process` (`supervisor`, `ingest-0`, `inference`, `projector`). No line is
written per record. Never in a log: audio, payloads, telephone numbers, credentials, and call ids, which may be numbers:
`call` is a hash of one. Other lines are a library's own, about its connections.

| event | level | fields |
| --- | --- | --- |
"""
_FIELDS: Final = {
    "assigned": "number of partitions given to this process",
    "batch_seconds": "length of the largest batch from now on, padding included, in s",
    "call": "a hash of the call id, 12 hex digits",
    "calls": "number of live calls whose state was restored",
    "confidence": "probability of the label, 0 to 1",
    "deaths": "ends of the process at which the worker gives up",
    "detail": "what was wrong with the record, without its content",
    "device": "where the model runs",
    "dtype": "type of its products: fp32, bf16, int8 or int8+bf16",
    "end_ms": "end of the speech, in ms of the call",
    "error": "what went wrong, and what to do",
    "exception": "the exception, with its traceback",
    "exit_code": "of the process; -9 for SIGKILL",
    "health_port": "where /livez, /readyz and /metrics are",
    "kind": "class of the error",
    "label": "the emotion, `abstained`, or none",
    "latency_ms": "from the capture of its last sample to the commit, in ms",
    "lost": "number of records",
    "name": "of a process",
    "number": "of the utterance in its call, from 1",
    "off_by": "the most that a probability was off in a trial, 0 to 1",
    "offset": "of the record in its partition, or where reading waits",
    "other": "another partition",
    "packed": "whether nothing but audio is computed, no padding",
    "partition": "number, in the audio topic",
    "pid": "of a process",
    "policy": "the settings of the group POLICY",
    "reason": "a code of the contract in schemas/",
    "revoked": "number of partitions taken from this process",
    "role": "of the speaker",
    "rule": "name of the alert's rule",
    "stall_s": "longest stall that is allowed, in s",
    "start_ms": "start of the speech, in ms of the call",
    "topic": "of the partition",
    "utterances": "number in the batch",
    "value": "by which the rule fired",
    "watermark": "offset from which the partition is read",
    "why": "why the partition cannot be taken over yet",
    "window_s": "time in which the ends of a process are counted, in s",
}


class Line(NamedTuple):
    """A line of the log, as the sources have it."""

    event: str
    level: str
    fields: tuple[str, ...]


def lines() -> Iterator[Line]:
    """All lines of the worker, file by file."""
    for path in sorted(_WORKER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(ast.Name("log" | "_log"), "info" | "warning" | "error" | "exception" as method),
                    args=[first, *_],
                ):
                    level, own = ("error", ("exception",)) if method == "exception" else (method, ())
                    named = (_RENDERED.get(name, name) for word in node.keywords for name in _names(word))
                    for event in _texts(first):
                        yield Line(event, level, (*named, *own))
                case _:
                    pass


def _names(word: ast.keyword) -> list[str]:
    """The fields that an argument makes: itself, or the keys of the standard library's `extra`."""
    if word.arg == "extra" and isinstance(word.value, ast.Dict):
        return [str(ast.literal_eval(key)) for key in word.value.keys if key]
    return [word.arg] if word.arg else []


def _texts(node: ast.expr) -> list[str]:
    """The words of an event, or of each that it may be."""
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    return [str(ast.literal_eval(node))]


def page() -> str:
    """The page as it must stand in docs/.

    Raises:
        KeyError: a field that is explained nowhere.
    """
    found = sorted(set(lines()))
    rows = [
        f"| {line.event} | {line.level} | {', '.join(f'`{name}`' for name in line.fields) or 'none'} |\n"
        for line in found
    ]
    used = sorted({name for line in found for name in line.fields})
    meanings = [f"| `{name}` | {_FIELDS[name]} |\n" for name in used]
    return "".join([_HEAD, *rows, "\n| field | what it is |\n| --- | --- |\n", *meanings])
