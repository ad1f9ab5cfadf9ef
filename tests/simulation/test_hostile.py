"""A hostile producer: good calls come out exactly as without it, each of its records is accounted for, nobody ends."""

from collections import Counter
from unittest.mock import patch

import pytest
from thorough import IS_NIGHT

from callmood.worker.partition.partition import Partition
from callmood.worker.stream_time import StreamTime
from tests.simulation.expected import Expected, refuse_disturbed
from tests.simulation.run import prepare, quiet_logs
from tests.simulation.scenario import scenario

SEEDS = 20_000 if IS_NIGHT else 60
BATCH = 20


@pytest.fixture(autouse=True)
def _quiet_logs():
    with quiet_logs():
        yield


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_a_hostile_producer_harms_only_itself(first):
    """Through crashes and takeovers too, on every output."""
    for seed in range(first, first + BATCH):
        try:
            prepare(seed, is_hostile=True).run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a seed is a finding
            pytest.fail(
                f"{type(error).__name__} {error}\nreproduce: python -m tests.simulation --seed {seed} --hostile"
            )


def test_the_hostile_producer_tries_everything():
    """Its records are refused for many reasons, some are copies, and some are calls of its own."""
    reasons, odd, calls = Counter(), 0, set()
    for seed in range(40):
        dealt = scenario(seed, is_hostile=True)
        expected = Expected(dealt)
        odd += len(dealt.odd)
        reasons.update(expected.letters[place].reason.value for place in dealt.odd & expected.letters.keys())
        calls |= {call_id for call_id in expected.calls if call_id.startswith("odd-")}
    assert odd > 1_000
    assert len(calls) == 3
    wanted = {"no_key", "bad_header", "no_schema", "wrong_schema", "empty", "too_long", "truncated", "bad_payload"}
    wanted |= {"unknown_encoding", "unsupported_rate", "bad_layout", "format_changed", "seq_backwards"}
    assert wanted <= reasons.keys(), reasons


def _after_any(time, timestamp):
    step_ms = max(0, timestamp - time.newest_ms) if time.newest_ms else 0
    return StreamTime(time.elapsed_ms + step_ms, max(timestamp, time.newest_ms))


def _settle_only(partition, record, *_):
    partition._ledger.settle(record.position.offset)
    return []


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        (StreamTime, "after", _after_any),
        (Partition, "_reject", _settle_only),
    ],
    ids=["a clock that follows every timestamp", "refused records vanish"],
)
def test_harm_is_found(owner, name, bug):
    """Bugs that let a producer harm others, or its records vanish, show within a few seeds."""
    with patch.object(owner, name, bug):
        found = 0
        for seed in range(20):
            dealt = scenario(seed, is_hostile=True)
            try:
                refuse_disturbed(dealt, Expected(dealt))
            except AssertionError:
                found += 1
    assert found > 0
