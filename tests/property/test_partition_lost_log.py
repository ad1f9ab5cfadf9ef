"""Retention has deleted records between the watermark and the start of the log: the calls in them go on with a gap."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from telephony import EPOCH_MS, Leg, Sent, Worker, dialogue, in_time, log_of, quiet
from thorough import examples

from callmood.schemas.call import Call


def calls(random: Random) -> list[Sent]:
    """Two calls at the same time; with and without media times, concealable gaps and pauses."""
    legs = []
    for number in range(2):
        leg = Leg(
            f"call-{number}",
            start_ms=EPOCH_MS + random.uniform(0, 3_000),
            layout="customer,agent",
            has_media_ms=random.random() < 0.7,
        )
        sent, audio = [], dialogue(random.randrange(6), 15)
        size = 2 * 8 * random.choice([40, 200, 1_000])
        for first in range(0, len(audio), size):
            if random.random() < 0.02:
                leg.skip(random.choice([100, 250, 2_000]))
            if random.random() < 0.02:
                sent += [leg.send("pause"), leg.send("resume")]
            sent.append(leg.send("media", audio[first : first + size]))
        legs.append([*sent, leg.send("end")])
    sent = in_time(*legs)
    # the clock follows after 10 s if more than that is lost; then the last words wait for 5 s
    return sent + Leg("other", start_ms=sent[-1].at_ms).media(quiet(25), chunk_ms=1_000)


@pytest.mark.timeout(300)
@settings(max_examples=examples(30))
@example(seed=307)
@example(seed=2058)
@example(seed=33788)
@given(seed=st.integers(0, 2**32))
def test_a_lost_stretch_of_the_log_is_a_gap(seed):
    """Nothing fails, no utterance is published twice, and every call ends."""
    random = Random(seed)
    log = log_of(calls(random))
    worker, cut = Worker(), random.randrange(len(log) - 30)
    for record in log[:cut]:
        worker.read([record])
        if random.random() < 0.3:
            worker.answer()
        if random.random() < 0.05:
            worker.commit_answered()
    lost = random.choice([1, 3, 20, 200])
    first_end = next(index for index, record in enumerate(log) if ("event", b"end") in record.headers)
    start = max(worker.store.watermark, min(worker.store.watermark + lost, first_end - 3))
    successor = Worker(worker.store)
    store = successor.read(log[start:]).commit()

    assert store.watermark > log[-10].position.offset
    for number in range(2):
        call = store.calls[f"call-{number}"]
        Call.model_validate(call)
        assert call["status"] != "live"
        utterances = store.of(f"call-{number}")
        assert [u["number"] for u in utterances] == list(range(1, len(utterances) + 1))
        for channel in range(2):
            own = [utterance for utterance in utterances if utterance["channel"] == channel]
            assert all(first["end_ms"] <= second["start_ms"] for first, second in pairwise(own))
    assert "worker_error" not in store.dead.values()
