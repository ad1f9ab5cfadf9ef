"""More and more calls for a program, until the 99th percentile from last word to Redis exceeds a limit.

Calls are sent in real time. How many utterances must come is counted before, by the program's own code, from the same
records and without servers: an utterance that does not come in time counts as one that takes for ever. Before the next
load, the calls end, and the program has to become idle; one that does not is started again.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Final, NamedTuple, Self
from uuid import uuid4

import numpy as np

from callmood.bench import process_tree, sender
from callmood.bench.ingest import LAYOUTS, Load, records_of
from callmood.bench.programs import Program, Result, Results
from callmood.bench.temporary import place
from callmood.schemas.keys import Keys
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings

_START_S: Final = 240.0
_ANSWER_S: Final = 5.0
"""After the last record: for so long a program that is starting is given to answer."""
_LATE_S: Final = 20.0
"""After the last record: a program that has not written all its utterances by then is behind."""
_POLL_S: Final = 0.5
_SETTLE_S: Final = 30.0
_IDLE_S: Final = 2.0
_IDLE_CORES: Final = 0.2
"""A program that uses less has nothing left to do: one that is behind uses a whole core."""
_FIRST: Final = 4
_NEAR: Final = 0.1
_TRIES: Final = 2


class Step(NamedTuple):
    """One load.

    Attributes:
        calls: simultaneous calls.
        results: utterances that came in time to be read.
        sender_late_ms: by how much the sender was late at most.
        expected: utterances that had to come.
        cores: CPU time of the program while calls were sent, in cores.
    """

    calls: int
    results: list[Result]
    sender_late_ms: float
    expected: int = 0
    cores: float = 0.0

    @property
    def missing(self) -> int:
        """Utterances that did not come."""
        return max(0, self.expected - len(self.results))

    def total_ms(self, percentile: float) -> float:
        """That percentile of the time from last word to Redis; without a result, infinite. A missing one is, too."""
        totals_ms = [result.total_ms for result in self.results] + [float("inf")] * self.missing
        return float(np.percentile(totals_ms, percentile, method="higher")) if totals_ms else float("inf")


def tries(most: int, limit_ms: float) -> Generator[int, Step, None]:
    """The loads that find how many calls are carried within the limit, to about a tenth; gets the step of each.

    The calls are doubled until the 99th percentile exceeds the limit, then the interval is halved. A load that exceeds
    it is measured a second time, because the machine may have had something else to do.
    """

    def carries(calls: int) -> Generator[int, Step, bool]:
        for _ in range(_TRIES):
            if (yield calls).total_ms(99) <= limit_ms:
                return True
        return False

    carried, calls = 0, min(_FIRST, most)
    while (yield from carries(calls)):
        if calls == most:
            return
        carried, calls = calls, min(2 * calls, most)
    while calls - carried > max(1.0, _NEAR * carried):
        middle = (carried + calls) // 2
        carried, calls = (middle, calls) if (yield from carries(middle)) else (carried, middle)


class Search:
    """The search for what one program carries, load by load; see `tries`.

    Attributes:
        steps: those that were measured.
        calls: of the next load; None at the end.
    """

    def __init__(self, most: int, limit_ms: float) -> None:
        self._tries = tries(most, limit_ms)
        self.steps: list[Step] = []
        self.calls: int | None = next(self._tries)

    def add(self, step: Step) -> None:
        """Take the step with these calls."""
        self.steps.append(step)
        try:
            self.calls = self._tries.send(step)
        except StopIteration:
            self.calls = None


def search(measure: Callable[[int], Step], most: int, limit_ms: float) -> list[Step]:
    """All steps of a search."""
    found = Search(most, limit_ms)
    while found.calls is not None:
        found.add(measure(found.calls))
    return found.steps


def rated(steps: Sequence[Step], limit_ms: float) -> int:
    """The most calls that were carried within the limit."""
    return max((step.calls for step in steps if step.total_ms(99) <= limit_ms), default=0)


class Expected:
    """Counts the utterances that a program must find in a load."""

    def __init__(self, program: Program, speech: bytes) -> None:
        self._cut, self._speech = program.cut, speech
        self._known: dict[tuple[int, int], dict[str, int]] = {}

    def __call__(self, load: Load) -> int:
        """Utterances of all calls. A call of the same number has the same audio in every load, and is cut once."""
        known = self._known.setdefault((load.chunk_ms, load.seconds), {})
        calls = {f"call-{line}" for line in range(load.calls)}
        if new := calls - set(known):
            records = records_of(load, self._speech)
            found = self._cut(record for record in records if (record.key or b"").decode() in new)
            known |= {call_id: found[call_id] for call_id in new}
        return sum(known[call_id] for call_id in calls)


# -- a program that runs


class _Running(NamedTuple):
    """A program, what it writes to stderr, the settings that it was started with, and its results."""

    process: "subprocess.Popen[bytes]"
    errors: BinaryIO
    configured: Settings
    results: Results

    def check(self, name: str) -> None:
        """Refuse to go on without it.

        Raises:
            ConfigurationError: it has ended; with its last line on stderr.
        """
        if self.process.poll() is not None:
            self.errors.seek(0)
            last = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ConfigurationError(f"{name} has ended with {self.process.returncode}: {last}")

    def wait_for(self, name: str, count: int, seconds: float) -> list[Result]:
        """The results of these calls, as soon as there are so many or the time is up."""
        until_s, found = time.monotonic() + seconds, self.results.more(f"-{name}")
        while len(found) < count and time.monotonic() < until_s and self.process.poll() is None:
            time.sleep(_POLL_S)
            found += self.results.more(f"-{name}")
        return found

    def becomes_idle(self) -> bool:
        """Wait until it has nothing to do; false if it still has after a while."""
        until_s = time.monotonic() + _SETTLE_S
        while time.monotonic() < until_s:
            before_s = process_tree.cpu_s(self.process.pid)
            time.sleep(_IDLE_S)
            if process_tree.cpu_s(self.process.pid) - before_s < _IDLE_CORES * _IDLE_S:
                return True
        return False


@contextmanager
def _running(program: Program, configured: Settings) -> Iterator[_Running]:
    """Start the program with a topic and keys of its own; end it and remove them after."""
    with place("load", configured, 1) as (placed, client):
        results = Results(client, Keys(placed.redis.prefix).named(program.stream), program.read)
        with tempfile.TemporaryFile() as errors, _process(program, placed, errors) as process:
            yield _Running(process, errors, placed, results)


@contextmanager
def _process(program: Program, configured: Settings, errors: BinaryIO) -> Iterator["subprocess.Popen[bytes]"]:
    """The program itself."""
    environment = {
        **os.environ,
        **program.environment,
        "CALLMOOD_KAFKA__AUDIO_TOPIC": configured.kafka.audio_topic,
        "CALLMOOD_KAFKA__GROUP_ID": configured.kafka.group_id,
        "CALLMOOD_KAFKA__DEAD_LETTER_TOPIC": configured.kafka.dead_letter_topic,
        "CALLMOOD_REDIS__PREFIX": configured.redis.prefix,
        "CALLMOOD_WORKER__HEALTH_PORT": "0",
    }
    process = subprocess.Popen(program.command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Measured:
    """Gives loads to a program, which is started before the first, and again after one that it could not finish.

    Args:
        program: what is measured.
        speech: PCMU at 8 kHz, customer and agent interleaved.
        configured: settings of this process; topic, group and prefix are replaced.
    """

    def __init__(self, program: Program, speech: bytes, configured: Settings) -> None:
        self._program, self._speech, self._configured = program, speech, configured
        self._expected = Expected(program, speech)
        self._opened = ExitStack()
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def step(self, load: Load) -> Step:
        """Send a load to the idle program, and wait for the results.

        Raises:
            ConfigurationError: the program does not start, or has ended.
        """
        running = self._running or self._started(load.chunk_ms)
        step = self._given(running, load, _LATE_S)
        running.check(self._program.name)
        if step.missing or not running.becomes_idle():
            self._end()
        return step

    def _started(self, chunk_ms: int) -> _Running:
        """Start it, and send few calls until they have results."""
        opened = _running(self._program, self._configured)
        with ExitStack() as stack:
            running = stack.enter_context(opened)
            until_s = time.monotonic() + _START_S
            while not self._given(running, Load(chunk_ms, LAYOUTS[0], 2, 8), _ANSWER_S).results:
                running.check(self._program.name)
                if time.monotonic() > until_s:
                    raise ConfigurationError(f"{self._program.name} gives no result within {_START_S:.0f} s")
            running.becomes_idle()
            self._opened, self._running = stack.pop_all(), running
        return running

    def _given(self, running: _Running, load: Load, late_s: float) -> Step:
        """Send the calls, wait for their results for so long, and end the calls."""
        name, expected = uuid4().hex[:6], self._expected(load)
        before_s = process_tree.cpu_s(running.process.pid)
        late_ms = sender.send(load, self._speech, running.configured, name)
        cores = (process_tree.cpu_s(running.process.pid) - before_s) / load.seconds
        results = running.wait_for(name, expected, late_s)
        sender.end(load, running.configured, name)
        return Step(load.calls, results, late_ms, expected, cores)

    def _end(self) -> None:
        self._opened.close()
        self._running = None
