"""Exactness of restarts at the model level: only what was committed survives a kill, and all of it changes together."""

from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import blake2b
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmood.worker import g711
from callmood.worker.call.alert import DEFAULT_RULES
from callmood.worker.call.render import Stamps
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import ModelInfo, Position, Prediction, Record
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

SOURCE = TopicPartition("audio", 0)
RATE_HZ = 8000
STAMPS = Stamps(
    {"emotion_roles": ["customer"], "require_notice": False, "legal_basis": None}, ModelInfo("m", "1", "sha256:0")
)
READ = partial(decode.decode, input_format="headers", max_record_ms=5000)


@cache
def speech(seed: int, seconds: int) -> np.ndarray:
    """Two channels that take turns: voiced bursts over a noise floor; int16, samples x 2."""
    random = np.random.default_rng(seed)
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    channels = []
    for _ in range(2):
        loud, at_s = np.zeros(len(t)), random.uniform(0, 1)
        while at_s < seconds:
            length_s = random.uniform(0.4, 4.0)
            loud[int(at_s * RATE_HZ) : int((at_s + length_s) * RATE_HZ)] = 1
            at_s += length_s + random.uniform(0.3, 2.0)
        pitch_hz = random.uniform(100, 220) * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))
        phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
        channels.append(2500 * voice * loud + random.normal(0, 30, len(t)))
    return np.stack(channels, axis=1).astype(np.int16)


def call_records(random: Random, number: int) -> list[tuple[float, str, list[tuple[str, bytes]], bytes]]:
    """One call as telephony sends it: uneven chunks; some lost, doubled or late; maybe paused; mostly ended."""
    pcm = speech(random.randrange(6), random.choice([8, 14, 22]))
    begin_ms, seq, first, records = random.uniform(0, 8000), 0, 0, []
    chunk_ms = random.choice([(20, 60), (100, 200), (1, 1000)])
    pause_from_ms = random.choice([None, None, random.uniform(1000, 6000)])

    def add(event: str, media_ms: float, value: bytes = b"", **more: str) -> None:
        nonlocal seq
        headers = {"schema": "callmood.audio/1", "event": event, "seq": str(seq), "media_ms": f"{media_ms:.3f}"} | more
        records.append(
            (begin_ms + media_ms, f"call-{number}", [(name, text.encode()) for name, text in headers.items()], value)
        )
        seq += 1

    add("start", 0, **{"attr.queue": "sales"})
    while first < len(pcm):
        count = max(1, round(random.uniform(*chunk_ms) * RATE_HZ / 1000))
        media_ms = first * 1000 / RATE_HZ
        if pause_from_ms is not None and media_ms >= pause_from_ms:
            add("pause", media_ms)
            first += 2 * RATE_HZ
            add("resume", first * 1000 / RATE_HZ)
            pause_from_ms = None
            continue
        value = g711.encode_pcmu(pcm[first : first + count].reshape(-1))
        add("media", media_ms, value, encoding="pcmu", rate="8000", layout="customer,agent")
        first += count
    if random.random() < 0.7:
        add("end", len(pcm) * 1000 / RATE_HZ)
    return disturb(random, records)


def disturb(random: Random, records: list) -> list:
    """Lose, double and swap a few records."""
    disturbed = []
    for record in records:
        dice = random.random()
        if dice < 0.01 and len(disturbed) > 2:
            continue
        disturbed.append(record)
        if dice > 0.99:
            disturbed.append(record)
        if dice > 0.97 and len(disturbed) > 3:
            disturbed[-1], disturbed[-2] = disturbed[-2], disturbed[-1]
    return disturbed


def make_log(random: Random) -> list[Record]:
    """Some calls interleaved on one partition, with a poison record in between."""
    entries = [entry for number in range(random.randint(1, 4)) for entry in call_records(random, number)]
    entries.sort(key=lambda entry: entry[0])
    entries.insert(random.randrange(len(entries)), (entries[0][0], "call-0", [("schema", b"nonsense")], b"\x00"))
    log, offset = [], random.randrange(100)
    for capture_ms, call_id, headers, value in entries:
        position = Position(*SOURCE, offset)
        log.append(Record(position, call_id.encode(), value, tuple(headers), 1_700_000_000_000 + round(capture_ms)))
        offset += random.choice([1, 1, 1, 2])  # control records take offsets
    return log


def heard(audio: bytes) -> Prediction:
    """A model whose answer depends on every byte it hears."""
    shares = [byte + 1 for byte in blake2b(audio, digest_size=4).digest()]
    anger, happiness, neutral, sadness = (share / sum(shares) for share in shares)
    return Prediction((anger, happiness, neutral, sadness))


@dataclass
class Store:
    """What survives a kill."""

    watermark: int | None = None
    time: StreamTime = field(default_factory=StreamTime)
    states: dict[str, bytes] = field(default_factory=dict)
    utterances: list[dict] = field(default_factory=list)
    alerts: list[dict] = field(default_factory=list)
    calls: dict[str, dict] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)

    def apply(self, commit) -> None:
        """All or nothing."""
        assert self.watermark is None or commit.watermark >= self.watermark
        self.watermark, self.time = commit.watermark, commit.time
        self.utterances += [{**u, "latency_ms": {}} for u in commit.utterances]
        self.alerts += commit.alerts
        self.dead |= {letter.record.position.offset for letter in commit.dead_letters}
        for call in commit.calls:
            if call.summary is not None:
                self.calls[call.call_id] = call.summary
            if call.state is None:
                self.states.pop(call.call_id, None)
            else:
                self.states[call.call_id] = call.state


def run(log: list[Record], random: Random, *, kills: int, configured: Settings) -> Store:
    """Read the log to its end in `kills` lives that end early and one that does not."""
    store = Store()
    for _ in range(kills):
        one_life(log, random, store, records=random.randrange(5, len(log)), configured=configured)
    one_life(log, random, store, records=len(log), configured=configured)
    return store


def one_life(log: list[Record], random: Random, store: Store, *, records: int, configured: Settings) -> None:
    """Read that many records from the watermark on; a life that does not reach the log's end is killed."""
    start = log[0].position.offset if store.watermark is None else store.watermark
    partition = Partition(SOURCE, Restored(start, store.time, dict(store.states)), READ, configured, DEFAULT_RULES)
    rest = [record for record in log if record.position.offset >= start]
    waiting = []
    for record in rest[:records]:
        waiting += partition.take(record, 0.0)
        answered = [u for u in waiting if random.random() < 0.3]
        for utterance in random.sample(answered, len(answered)):
            partition.settle(utterance.call_id, utterance.id, heard(utterance.audio), 0.0)
        waiting = [u for u in waiting if u not in answered]
        if random.random() < 0.05 and (commit := partition.collect(STAMPS, 0.0)):
            if records < len(rest) and random.random() < 0.1:
                return  # killed inside the commit: nothing of it is visible
            store.apply(commit)
    if records < len(rest):
        return
    for utterance in waiting:
        partition.settle(utterance.call_id, utterance.id, heard(utterance.audio), 0.0)
    if commit := partition.collect(STAMPS, 0.0):
        store.apply(commit)


def by_call(store: Store) -> dict[str, list[dict]]:
    calls: dict[str, list[dict]] = {}
    for utterance in store.utterances:
        calls.setdefault(utterance["call_id"], []).append(utterance)
    return calls


def content(summary: dict) -> dict:
    """A call/1 record without its counters of change."""
    return {name: value for name, value in summary.items() if name not in {"version", "updated_at_ms"}}


@pytest.mark.timeout(300)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_kills_and_resumes_change_nothing(seed):
    """Killing the pipeline at any record and resuming from the committed triple gives the uninterrupted outputs."""
    random = Random(seed)
    configured = Settings()
    log = make_log(random)
    reference = run(log, Random(0), kills=0, configured=configured)
    killed = run(log, random, kills=random.randint(1, 12), configured=configured)

    assert by_call(killed) == by_call(reference)
    assert {i: content(s) for i, s in killed.calls.items()} == {i: content(s) for i, s in reference.calls.items()}
    assert sorted(a["alert_id"] for a in killed.alerts) == sorted(a["alert_id"] for a in reference.alerts)
    assert killed.dead == reference.dead
    assert killed.dead
