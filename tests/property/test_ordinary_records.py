"""Ordinary records are taken by a shorter way: what is published and stored is the same by the long one.

The shorter way reads the headers of a shape once (`decode`), and leaves out of `Stream` and `Call` what cannot concern
the next audio of a known stream.
"""

from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields
from telephony import EPOCH_MS, Leg, Sent, Worker, dialogue, in_time, log_of
from thorough import examples

from callmood.schemas.audio import AudioHeaders
from callmood.worker.call.call import Call
from callmood.worker.intake import decode
from callmood.worker.records import Chunk, Position, Record
from callmood.worker.settings import Settings
from callmood.worker.speech.stream import Stream

AUDIO = dialogue(3, 60)
EVENTS = ("pause", "resume", "hold", "unhold", "gap", "silence", "start", "end")
STEPS = ("talk", "talk", "talk", "talk", "lost", "skipped", "late", "roles", "described", "told", "ahead", *EVENTS)
CHUNKS_MS = st.sampled_from([20, 20, 30, 100, 200, 1000])
LEGS = st.lists(
    st.tuples(
        CHUNKS_MS,
        st.sampled_from(["customer", "agent", "customer,agent"]),
        st.booleans(),
        st.integers(0, 3_000) | st.sampled_from([12_000, 40_000]),
        st.lists(st.tuples(st.sampled_from(STEPS), st.integers(20, 3_000)), min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=3,
)


def records(number: int, leg: tuple) -> list[Sent]:
    """What one leg sends; `late`, `ahead` and `roles` change one record or all that follow."""
    chunk_ms, layout, has_media_ms, start_ms, steps = leg
    line = Leg(stream=f"s{number % 2}", start_ms=EPOCH_MS + start_ms, layout=layout, has_media_ms=has_media_ms)
    line.call_id = f"call-{number // 2}"
    sent, at, usual = [line.send("start")], 0, {}
    for step, length_ms in [("talk", 1_500), *steps, ("talk", 1_000)]:
        if step == "talk":
            frame = len(line.layout.split(","))
            audio = AUDIO[2 * 8 * at : 2 * 8 * (at + length_ms)]
            at += length_ms
            size = frame * 8 * chunk_ms
            audio = audio if frame == 2 else audio[::2]
            sent += [line.send("media", audio[n : n + size], **usual) for n in range(0, len(audio), size)]
        elif step in ("lost", "skipped"):
            (line.lose if step == "lost" else line.skip)(length_ms)
        elif step == "late":
            line.start_ms += length_ms / 4
        elif step == "ahead":
            line.media_ms += 40 * length_ms
            sent.append(line.send("media", bytes(80 * len(line.layout.split(",")))))
            line.media_ms -= 40 * length_ms
        elif step == "roles":
            line.layout = ",".join(reversed(line.layout.split(","))) if "," in line.layout else "unknown"
        elif step == "described":
            usual = usual | {"attr.queue": str(length_ms % 3)}
        elif step == "told":
            usual = usual | {"notice": "given"}
        else:
            needs_length = step in ("gap", "silence")
            sent.append(line.send(step, **({"discarded_ms": str(length_ms)} if needs_length else {})))
    return sent


def shuffled(sent: list[Sent], random: Random) -> list[Sent]:
    """Some records twice, some a few places later, some not at all."""
    places = [(place + random.choice([0] * 20 + [3.5, 9.5]), item) for place, item in enumerate(sent)]
    places += [(place + random.randint(1, 30), item) for place, item in enumerate(sent) if random.random() < 0.03]
    places = [entry for entry in places if random.random() > 0.01]
    return [item for _, item in sorted(places, key=lambda entry: entry[0])]


def lives(log: list, random: Random, configured: Settings, poll: int = 40) -> list:
    """What is stored after each step of a worker that restarts, answers late and commits in between.

    Each step is read in polls of so many records.
    """
    worker, position, stored = Worker(configured=configured), 0, []
    while position < len(log):
        step = random.randint(1, 40)
        for first in range(position, position + step, poll):
            worker.read(log[first : min(first + poll, position + step)])
        position += step
        match random.randint(0, 9):
            case 0:
                worker = Worker(worker.store, configured)
                position = worker.store.watermark
            case 1 | 2:
                worker.answer(random.sample(worker.waiting, len(worker.waiting) // 2))
                worker.commit_answered()
            case 3 | 4 | 5:
                worker.commit()
        store = worker.store
        stored.append((store.watermark, store.time, dict(store.states), dict(store.calls), dict(store.dead)))
    store = worker.commit()
    return [*stored, store.utterances, store.alerts, store.calls, store.states, store.watermark]


@pytest.mark.plain_python
@pytest.mark.timeout(600)
@settings(max_examples=examples(50))
@given(legs=LEGS, seed=st.integers(0, 2**32), is_disordered=st.booleans())
def test_the_shorter_way_gives_the_same(legs, seed, is_disordered):
    """On any records, commits and restarts, what is stored after each step is the same by both ways."""
    sent = in_time(*(records(number, leg) for number, leg in enumerate(legs)))
    log = log_of(shuffled(sent, Random(seed)) if is_disordered else sent)
    configured = Settings(model={"speech_check": seed % 2 == 0})
    short = lives(log, Random(seed), configured)
    with (
        patch.object(Stream, "is_next", return_value=False),
        patch.object(Call, "_goes_on", return_value=False),
        patch.object(decode, "_decode_known", return_value=None),
    ):
        long = lives(log, Random(seed), configured)
    assert short == long


@pytest.mark.timeout(600)
@settings(max_examples=examples(30))
@given(legs=LEGS, seed=st.integers(0, 2**32), poll=st.integers(1, 8), is_disordered=st.booleans())
def test_the_records_of_a_poll_change_nothing(legs, seed, poll, is_disordered):
    """However the records are divided into polls, the same is stored at the same commits."""
    sent = in_time(*(records(number, leg) for number, leg in enumerate(legs)))
    log = log_of(shuffled(sent, Random(seed)) if is_disordered else sent)
    assert lives(log, Random(seed), Settings()) == lives(log, Random(seed), Settings(), poll)


@pytest.mark.plain_python
def test_ordinary_records_take_the_shorter_way():
    """All audio of a call but its first record is ordinary: the test above compares two ways."""
    leg = Leg(layout="customer,agent")
    log = log_of([leg.send("start"), *leg.media(AUDIO[:48_000])])
    with patch.object(Call, "_learn", autospec=True, side_effect=Call._learn) as learned:
        Worker().read(log)
    assert learned.call_count == 1
    with patch.object(Stream, "take_next", autospec=True, side_effect=Stream.take_next) as taken:
        Worker().read(log).commit()
    assert sum(len(call.args[1]) for call in taken.call_args_list) == len(log) - 2
    decode._shape.cache_clear()
    Worker().read(log)
    assert decode._shape.cache_info().hits == len(log) - 2


def sizes_taken(log):
    """How many records streams took together, each time; every record comes in a poll of its own."""
    with patch.object(Stream, "take_next", autospec=True, side_effect=Stream.take_next) as taken:
        worker = Worker()
        for record in log:
            worker.read([record])
    return [len(call.args[1]) for call in taken.call_args_list]


@pytest.mark.plain_python
def test_short_records_are_taken_together():
    """Of records of 20 ms, each in a poll of its own, few are taken alone: those at which an utterance can close."""
    leg = Leg(layout="customer,agent")
    log = log_of([leg.send("start"), *leg.media(AUDIO[:320_000], chunk_ms=20)])
    sizes = sizes_taken(log)
    assert sum(size for size in sizes if size >= 4) > 0.8 * len(log)
    assert max(sizes) > 20


@pytest.mark.plain_python
def test_streams_that_alternate_are_taken_together():
    """The records of two legs of a call, one after the other, wait side by side: few are taken alone."""
    legs = [Leg(stream=name, layout=name) for name in ("customer", "agent")]
    first = [leg.send("start") for leg in legs]
    sent = zip(*(leg.media(AUDIO[n:320_000:2], chunk_ms=20) for n, leg in enumerate(legs)), strict=True)
    log = log_of([*first, *(record for pair in sent for record in pair)])
    sizes = sizes_taken(log)
    assert sum(size for size in sizes if size >= 4) > 0.8 * len(log)


FULL = {
    "schema": "callmood.audio/1",
    "event": "media",
    "stream": "leg-7",
    "seq": "12",
    "media_ms": "240.5",
    "encoding": "pcma",
    "rate": "16000",
    "layout": "agent,customer",
    "discarded_ms": "0",
    "notice": "given",
    "scope": "stream",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "attr.queue": "billing",
}


@pytest.mark.parametrize("name", FULL)
def test_the_shorter_way_forgets_no_header(name):
    """A record is read the same by both ways if it has all headers, all but one, or one that is repeated or empty."""
    others = {key: text for key, text in FULL.items() if key != name}
    for headers in (
        [*FULL.items()],
        [*others.items()],
        [*others.items(), (name, "")],
        [*FULL.items(), (name, FULL[name])],
    ):
        encoded = tuple((key, text.encode()) for key, text in headers)
        for without in ((), ("traceparent",), ("traceparent", "discarded_ms")):
            kept = tuple(header for header in encoded if header[0] not in without)
            record = Record(Position("audio", 3, 9), b"call", bytes(640), kept, EPOCH_MS)
            known = decode._decode_known(record, max_record_ms=5_000)
            assert known is None or known == decode._decode_headers(record, max_record_ms=5_000)


def test_the_shorter_way_is_compared_in_every_field():
    """The records above set all headers of the contract and all fields of a chunk, and are read by the shorter way."""
    assert {field.alias or name for name, field in AudioHeaders.model_fields.items()} <= FULL.keys()
    headers = tuple((key, text.encode()) for key, text in FULL.items())
    record = Record(Position("audio", 3, 9), b"call", bytes(640), headers, EPOCH_MS)
    full = decode._decode_headers(record, max_record_ms=5_000)
    unset = {one.name for one in fields(Chunk) if getattr(full, one.name) in (one.default, {})}
    assert unset <= {"has_track", "discarded_ms"}  # Twilio's, and not of a record with audio
    record.headers = tuple(header for header in headers if header[0] != "traceparent")
    assert decode._decode_known(record, max_record_ms=5_000) is not None
