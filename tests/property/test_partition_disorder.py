"""A partition under everything that telephony does: it never fails, and kills change nothing that it publishes."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from telephony import EPOCH_MS, STAMPS, Leg, Sent, Store, Worker, dialogue, facts, in_time, log_of, quiet
from thorough import examples

from callmood.schemas.alert import Alert
from callmood.schemas.call import Call
from callmood.schemas.utterance import Utterance
from callmood.worker.records import Record
from callmood.worker.settings import Settings

SEEDS = st.integers(0, 2**32)
IDLE_S, MEMORY_S = 20, 30
BRIEF = Settings(call={"idle_s": IDLE_S, "ended_memory_s": MEMORY_S, "resume_s": MEMORY_S})


def odd_record(random: Random) -> tuple[str, bytes, dict[str, str]]:
    """Event, value and headers of a record that a gateway sends now and then."""
    return random.choice(
        [
            ("pause", b"", {}),
            ("resume", b"", {}),
            ("gap", b"", {"discarded_ms": random.choice(["5", "250", "301", "4000"])}),
            ("media", quiet(0.2), {"media_ms": random.choice(["0", "7000", "60000"])}),
            ("media", quiet(0.2), {"encoding": random.choice(["pcma", "s16le", "opus"])}),
            ("start", b"", {"attr.queue": random.choice("ab"), "notice": "given"}),
            ("media", b"\x00", {"schema": "nonsense"}),
        ]
    )


def something_odd(random: Random, leg: Leg) -> list[Sent]:
    """One of the things that happen to a leg now and then."""
    match random.randrange(6):
        case 0:
            leg.skip(random.choice([15, 100, 299, 301, 2_000, 9_000, 40_000]))  # silence suppression, outages
        case 1:
            leg.seq += random.choice([1, 3, 40])  # records lost on the way
        case 2:
            leg.start_ms += random.choice([-4_000, 4_000, 3_600_000, -3_600_000])  # the gateway's clock is set
        case _:
            event, value, headers = odd_record(random)
            return [leg.send(event, value, **headers)]
    return []


def leg_records(random: Random, leg: Leg) -> list[Sent]:
    """One leg: a dialogue in uneven records, with odd events in between."""
    audio, first = dialogue(random.randrange(6), random.choice([4, 9, 15])), 0
    chunk_ms = random.choice([(20, 60), (100, 200), (1, 1000)])
    oddness = random.choice([0, 0.02, 0.1])
    sent = [leg.send("start")] if random.random() < 0.7 else []
    while first < len(audio):
        if random.random() < oddness:
            sent += something_odd(random, leg)
        size = 2 * max(1, round(random.uniform(*chunk_ms) * 8))
        sent.append(leg.send("media", audio[first : first + size]))
        first += size
    return sent


def call_records(random: Random, number: int) -> list[Sent]:
    """One call: one or more legs, one after the other or at the same time; mostly ended."""
    start_ms, has_media_ms = EPOCH_MS + random.uniform(0, 9_000), random.random() < 0.8
    legs = []
    for stream in range(random.choice([1, 1, 1, 2, 3])):
        leg = Leg(
            f"call-{number}",
            stream=str(stream),
            start_ms=start_ms,
            layout="customer,agent",
            has_media_ms=has_media_ms,
        )
        legs.append(leg_records(random, leg))
        start_ms += random.uniform(0, 12_000)
    sent = in_time(*legs)
    if random.random() < 0.7:
        sent.append(leg.send("end"))
    if random.random() < 0.3:
        sent += leg.media(dialogue(0, 4)[:16_000])  # somebody goes on after the end
    return sent


def disturbed(random: Random, sent: list[Sent]) -> list[Sent]:
    """Lose, double and delay a few records."""
    arrived = []
    for index, item in enumerate(sent):
        dice = random.random()
        if dice < 0.01:
            continue
        late = random.choice([1, 1, 2, 5, 20]) if dice > 0.97 else 0
        arrived.append((index + late + 0.5 * bool(late), item))
        if dice > 0.99:
            arrived.append((index + random.choice([1, 30]), item))
    return [item for _, item in sorted(arrived, key=lambda entry: entry[0])]


def make_log(random: Random) -> list[Sent]:
    """Some calls on one partition, then another call for long enough that all of them are over."""
    calls = [disturbed(random, call_records(random, number)) for number in range(random.randint(1, 3))]
    sent, queues = [], [list(reversed(call)) for call in calls]
    while queues := [queue for queue in queues if queue]:
        queue = min(queues, key=lambda waiting: waiting[-1].at_ms)
        sent.append(queue.pop())
    newest_ms = max(item.at_ms for item in sent)
    other = Leg("other", start_ms=newest_ms)
    return sent + other.media(quiet(IDLE_S + MEMORY_S + 10), chunk_ms=1000)


def with_holes(log: list[Record]) -> list[Record]:
    """The log as transactions leave it: control records take offsets that no consumer sees."""
    return [replace(r, position=replace(r.position, offset=r.position.offset * 5 // 4)) for r in log]


def run(log: list[Record], random: Random, *, kills: int) -> Store:
    """Read the log to its end in `kills` lives that end early and one that does not."""
    store = Store()
    for life in range(kills + 1):
        rest = [record for record in log if record.position.offset >= store.watermark]
        length = len(rest) if life == kills else random.randrange(len(rest) + 1)
        worker = Worker(store, BRIEF)
        for record in rest[:length]:
            worker.read([record])
            if random.random() < 0.3:
                worker.answer(random.sample(worker.waiting, random.randint(0, len(worker.waiting))))
            if random.random() < 0.1 and not lives_through_a_commit(worker, random, is_last=life == kills):
                break
    worker.commit()
    worker.commit()  # deletes the memory of calls that ended with the commit before
    return store


def lives_through_a_commit(worker: Worker, random: Random, *, is_last: bool) -> bool:
    """Commit; but now and then the store does not answer, or the worker is killed before anything of it is visible."""
    dice = random.random()
    if dice < 0.2:
        worker.partition.collect(STAMPS, 0.0)
        return is_last or dice < 0.1
    worker.commit_answered()
    return True


@pytest.mark.timeout(300)
@settings(max_examples=examples(20))
@example(seed=5000176)
@given(seed=SEEDS)
def test_disorder_is_survived_exactly(seed):
    """Kills at any record and inside any commit change nothing that is published, whatever records come."""
    random = Random(seed)
    log = with_holes(log_of(make_log(random)))
    steady = run(log, Random(0), kills=0)
    killed = run(log, random, kills=random.randint(1, 8))
    assert killed.calls.keys() == steady.calls.keys()
    for call_id in steady.calls:
        assert facts(killed, call_id) == facts(steady, call_id)
    assert sorted(a["alert_id"] for a in killed.alerts) == sorted(a["alert_id"] for a in steady.alerts)
    assert killed.dead == steady.dead


@pytest.mark.timeout(300)
@settings(max_examples=examples(20))
@example(seed=802)
@example(seed=2257)
@example(seed=492609)
@given(seed=SEEDS)
def test_disorder_gives_legal_results(seed):
    """Results keep their schemas, utterances of a channel never overlap, and their numbers have no holes."""
    log = make_log(Random(seed))
    store = run(log_of(log), Random(seed), kills=0)
    for call in store.calls.values():
        Call.model_validate(call)
        numbers = [utterance["number"] for utterance in store.of(call["call_id"])]
        before = len(numbers) - call["utterances"]
        assert numbers[before:] == list(range(1, call["utterances"] + 1))
        # Once a call has ended and is forgotten, its id is a new call's: the old one's utterances stand before it.
        times_ms = [sent.at_ms for sent in log if sent.call_id == call["call_id"]]
        replaced = sum(later - earlier > 1000 * (IDLE_S + MEMORY_S) for earlier, later in pairwise(times_ms))
        assert numbers[:before].count(1) <= replaced
        assert all(later in (1, earlier + 1) for earlier, later in pairwise(numbers))
        assert call["duration_ms"] >= max((u["end_ms"] for u in store.of(call["call_id"])[before:]), default=0)
    for alert in store.alerts:
        Alert.model_validate(alert)
    channels: dict[tuple, list] = {}
    lives: Counter[str] = Counter()
    for utterance in store.utterances:
        Utterance.model_validate(utterance)
        call_id = utterance["call_id"]
        lives[call_id] += utterance["number"] == 1
        channels.setdefault((call_id, lives[call_id], utterance["stream"], utterance["channel"]), []).append(utterance)
    for utterances in channels.values():
        assert all(first["end_ms"] <= second["start_ms"] for first, second in pairwise(utterances))


@pytest.mark.timeout(300)
@settings(max_examples=examples(20))
@given(seed=SEEDS)
def test_every_record_is_settled_in_the_end(seed):
    """Once all calls have ended or stalled, no record of theirs is needed again and no state of theirs is kept."""
    sent = make_log(Random(seed))
    last = max(offset for offset, item in enumerate(sent) if item.call_id != "other")
    store = run(log_of(sent), Random(seed), kills=2)
    assert store.watermark > last
    assert set(store.states) <= {"other"}
    assert {call["status"] for call_id, call in store.calls.items() if call_id != "other"} <= {"completed", "failed"}
