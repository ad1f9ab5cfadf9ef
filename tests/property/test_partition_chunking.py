"""How a call was cut into records changes nothing of its utterances and of its aggregate."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telephony import Leg, Sent, analyse, dialogue, facts, unsent
from thorough import examples

PARTS = st.lists(
    st.tuples(
        st.sampled_from(["talk", "talk", "pause", "gap", "outage"]),
        st.integers(20, 4_000),
    ),
    min_size=1,
    max_size=6,
)


def call(parts: list[tuple[str, int]], random: Random | None) -> list[Sent]:
    """The call in records of 200 ms, or of any length from 1 ms to 1 s."""
    audio, leg = dialogue(1, 30), Leg(layout="customer,agent")
    sent, first = [leg.send("start", **{"attr.queue": "sales"})], 0
    for kind, length_ms in [*parts, ("talk", 3_000)]:
        if kind == "pause":
            sent.append(leg.send("pause"))
            leg.skip(length_ms)
            sent.append(leg.send("resume"))
        elif kind == "gap":
            sent.append(leg.send("gap", discarded_ms=str(length_ms)))
            leg.skip(length_ms)
        elif kind == "outage":
            leg.skip(length_ms)
        end = first + 2 * 8 * length_ms * (kind == "talk")
        while first < end:
            size = min(2 * 8 * (random.randint(1, random.choice([5, 50, 1000])) if random else 200), end - first)
            sent.append(leg.send("media", audio[first : first + size]))
            first += size
    return [*sent, leg.send("end")]


@pytest.mark.timeout(300)
@settings(max_examples=examples(30))
@given(parts=PARTS, seed=st.integers(0, 2**32))
def test_records_of_any_length_give_the_same(parts, seed):
    """Records of 1 ms to 1 s give the utterances and the final aggregate that records of 200 ms give."""
    even, uneven = analyse(call(parts, None)), analyse(call(parts, Random(seed)))
    (utterances, summary), (others, other) = facts(even), facts(uneven)
    assert unsent(others) == unsent(utterances)
    assert other == summary
