"""`callmood analyze`: recorded calls through the worker's own stages, without Kafka and Redis."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callmood.schemas.utterance import label_or_reason
from callmood.worker import settings
from callmood.worker.call import policy
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commands import options
from callmood.worker.commands.recordings import BadRecording, Recording
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.engine.check import Listener
from callmood.worker.errors import EXIT_CONFIGURATION, EXIT_OK
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position, Record, Utterance
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

_SOURCE = TopicPartition("file", 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    options.add_recording_options(parser, files="+")
    parser.add_argument(
        "--format",
        choices=("json", "table"),
        default="json",
        help="default: json, one object per line",
    )


def run(arguments: argparse.Namespace) -> int:
    """Analyze each file; exit code 2 if a file cannot be used. The others are analyzed all the same."""
    configured = settings.load()
    listener = Listener.open(configured.model)
    code = EXIT_OK
    show = _show_table if arguments.format == "table" else _show_json
    for paths, call_id in zip(options.files_of_calls(arguments), options.call_ids(arguments), strict=True):
        try:
            results = analyze(options.read(paths, arguments), call_id, listener, configured)
        except BadRecording as error:
            print(f"callmood: {error}", file=sys.stderr)
            code = EXIT_CONFIGURATION
            continue
        show(*results)
        _warn(paths[0], *results)
    return code


def analyze(
    recording: Recording, call_id: str, listener: Listener, configured: Settings
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """The utterance/1 records of a call and its final call/1, as the worker would publish them.

    What only exists live (latency, Kafka positions, wall-clock times) is null.

    Raises:
        BadRecording: the worker would refuse records of it.
    """
    reader = partial(decode.decode, input_format="headers", max_record_ms=configured.input.max_record_ms)
    partition = Partition(_SOURCE, Restored(0, StreamTime(), {}), reader, configured, DEFAULT_RULES)
    for offset, sent in enumerate(recording.records()):
        record = Record(
            Position(*_SOURCE, offset), call_id.encode(), sent.value, tuple(sent.headers), round(sent.media_ms)
        )
        _answer(partition, partition.take((record,), 0.0), listener)
    commit = partition.collect(Stamps(policy.stamp(configured.policy), listener.info), 0.0)
    if commit.dead_letters:
        letter = commit.dead_letters[0]
        refused = f"{len(commit.dead_letters)} records refused: {letter.reason}: {letter.detail}"
        raise BadRecording(f"{recording.path}: {refused}")
    summary = next(call.summary for call in commit.calls if call.summary is not None)
    live_only: dict[str, Any] = {"latency_ms": {}, "source": None, "spoken_at_ms": None}
    return [{**utterance, **live_only} for utterance in commit.utterances], summary


def _answer(partition: Partition, utterances: Iterable[Utterance], listener: Listener) -> None:
    waiting = list(utterances)
    for utterance, prediction in zip(waiting, listener.answer(waiting), strict=True):
        partition.answer(utterance.call_id, utterance.id, prediction, 0.0)


def _warn(path: Path, utterances: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Say that the file was decoded wrongly, if it looks so."""
    if not summary["doubtful_format"]:
        return
    looks = Counter(utterance["quality"]["looks_like"] for utterance in utterances)
    names = " and ".join(f"{count} like {name}" for name, count in looks.items() if name)
    print(f"callmood: {path}: utterances look wrongly decoded, {names}: check its encoding, or --raw", file=sys.stderr)


def _show_json(utterances: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    for line in (*utterances, summary):
        print(json.dumps(line, separators=(",", ":")))


def _show_table(utterances: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    table = Table(title=f"{summary['call_id']}, {summary['duration_ms'] / 1000:.1f} s")
    for name in ("#", "role", "start", "end", "emotion", "confidence", "level", "cut"):
        table.add_column(name, justify="left" if name in {"role", "emotion", "cut"} else "right")
    for utterance in utterances:
        emotion = utterance["emotion"]
        table.add_row(
            str(utterance["number"]),
            utterance["role"],
            f"{utterance['start_ms'] / 1000:.2f}",
            f"{utterance['end_ms'] / 1000:.2f}",
            label_or_reason(utterance).removeprefix("policy:"),
            f"{emotion['confidence']:.2f}" if emotion and emotion["confidence"] is not None else "",
            f"{utterance['acoustics']['rms_dbfs']:.0f} dB",
            utterance["quality"]["cut"],
        )
    Console().print(table)
