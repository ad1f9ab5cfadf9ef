"""Measure what the inference process costs beside its model: socket, queue, batches, answers, and the speech check.

The process is the worker's, with an engine that answers at once. This process sends utterances at a steady rate, as the
ingest processes do, and takes the answers. The figures are the CPU time of the inference process, all its threads, and
the time from an utterance to its answer.
"""

import argparse
import tempfile
import time
from typing import Final, NamedTuple

import numpy as np

from callmood.bench.realtime import inference, used_by
from callmood.bench.synthetic import lengths_s, speak
from callmood.schemas.common import Encoding
from callmood.worker import settings
from callmood.worker.commands.options import whole
from callmood.worker.errors import CallmoodError
from callmood.worker.inference.submit import InferenceClient
from callmood.worker.run.child import SpawnedChild, Task

_VOICES: Final = 200
_START_S: Final = 60.0
_WAIT_S: Final = 0.002
_LAST_S: Final = 10.0


class Said(NamedTuple):
    """What the client sends of an utterance."""

    encoding: Encoding
    rate_hz: int
    audio: bytes
    wants_emotion: bool = True
    capture_end_ms: int = 0


class Result(NamedTuple):
    """What was measured.

    Attributes:
        per_minute: utterances that were sent a minute, until the last of them.
        unanswered: those that had no answer ten seconds after the last was sent.
        share: CPU time of the inference process, in cores.
        took_ms: of each answer, the time since its utterance was due.
    """

    per_minute: float
    unanswered: int
    share: float
    took_ms: list[float]

    def __str__(self) -> str:
        p50, p99 = np.percentile(self.took_ms, (50, 99)) if self.took_ms else (float("inf"), float("inf"))
        return (
            f"{self.per_minute:,.0f} utterances a minute, {self.unanswered} unanswered: {100 * self.share:.1f} % of a "
            f"core, answers after {p50:.1f} ms (p50), {p99:.1f} ms (p99)"
        )


def measure(client: InferenceClient, pid: int | None, voices: list[Said], per_minute: int, seconds: int) -> Result:
    """Send the voices in turn at a steady rate; each is due at its own moment, however late the others are."""
    count, before = per_minute * seconds // 60, used_by([pid])
    began_s = time.monotonic()
    due_s = [began_s + number * 60 / per_minute for number in range(count)]
    sent, sent_s, took_ms, end_s = 0, began_s, list[float](), began_s + seconds + _LAST_S
    while len(took_ms) < count and time.monotonic() < end_s:
        while sent < count and due_s[sent] <= time.monotonic():
            client.submit(str(sent), voices[sent % len(voices)])  # type: ignore[arg-type]  # no more of it is read
            sent, sent_s = sent + 1, time.monotonic()
        now_s = time.monotonic()
        took_ms += [1000 * (now_s - due_s[int(key)]) for key, _ in client.collect()]
        time.sleep(_WAIT_S)
    share = (used_by([pid]).cpu_s - before.cpu_s) / (time.monotonic() - began_s)
    return Result(60 * sent / max(seconds, sent_s - began_s), sent - len(took_ms), share, took_ms)


def wait_until_ready(client: InferenceClient, child: SpawnedChild) -> None:
    """Wait until the process answers.

    Raises:
        CallmoodError: it has ended, or the time is up.
    """
    until_s = time.monotonic() + _START_S
    while client.model is None:
        client.collect()
        if child.exit_code is not None or time.monotonic() > until_s:
            raise CallmoodError("the inference process does not start")
        time.sleep(_WAIT_S)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--per-minute", type=whole(60, 1_000_000), default=20_000, help="utterances a minute")
    parser.add_argument("--seconds", type=whole(1, 3_600), default=20, help="time to measure, s")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print a line without the speech check, and one with it; returns the exit code."""
    configured = settings.load()
    voices = [Said(*speak(length_s, number)) for number, length_s in enumerate(lengths_s(_VOICES, 1))]
    for is_checked in (False, True):
        model = configured.model.model_copy(update={"speech_check": is_checked})
        with tempfile.TemporaryDirectory(prefix="callmood-") as folder:
            address = f"ipc://{folder}/inference"
            task = Task("inference", inference, (configured.model_copy(update={"model": model}), address))
            child = SpawnedChild(task._replace(has_reports=False))
            client = InferenceClient(address)
            try:
                wait_until_ready(client, child)
                result = measure(client, child.pid, voices, arguments.per_minute, arguments.seconds)
                print(f"speech check {'on' if is_checked else 'off'}: {result}")
            finally:
                client.close()
                child.terminate()
                child.wait(30.0)
                child.kill()
    return 0
