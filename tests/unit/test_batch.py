"""The queue in front of the engine, by hand-set clock."""

import numpy as np
import pytest

from callmood.worker.engine.batch import Batcher


@pytest.fixture
def batcher():
    """At most 10 padded seconds in a batch; 20 ms of waiting for company."""
    return Batcher(batch_seconds=10.0, max_wait_s=0.02)


def test_an_empty_queue_is_never_due(batcher):
    """Nothing waits, nothing is due."""
    assert batcher.due_s() is None
    assert batcher.due(1e9) is None


def test_an_idle_engine_gets_the_first_utterance_at_once(batcher):
    """When no batch was taken lately, there is no wait."""
    batcher.add("a", 2.0, now_s=100.0)
    assert batcher.due(100.0) == ["a"]
    assert len(batcher) == 0


def test_a_busy_engine_waits_for_company(batcher):
    """Right after a batch, an utterance waits until the deadline, and what comes meanwhile goes with it."""
    batcher.add("a", 2.0, now_s=100.0)
    batcher.due(100.0)
    batcher.add("b", 2.0, now_s=100.001)
    assert batcher.due(100.002) is None
    assert batcher.due_s() == pytest.approx(100.02)
    batcher.add("c", 2.0, now_s=100.010)
    assert batcher.due(100.021) == ["c", "b"]


def test_a_full_batch_does_not_wait(batcher):
    """Company enough for the budget ends the wait."""
    batcher.add("a", 2.0, now_s=100.0)
    batcher.due(100.0)
    for key in "bcdef":
        batcher.add(key, 2.0, now_s=100.001)
    assert batcher.due(100.001) == ["f", "e", "d", "c", "b"]


def test_the_budget_counts_padding(batcher):
    """Four utterances of 2.5 to 2.6 s are 10.4 padded seconds: one too many."""
    for key, seconds in (("a", 2.6), ("b", 2.5), ("c", 2.5), ("d", 2.5)):
        batcher.add(key, seconds, now_s=0.0)
    assert batcher.due(0.0) == ["c", "b", "a"]
    assert batcher.due(1.0) == ["d"]


def test_company_is_of_similar_length(batcher):
    """A long utterance does not take short ones along, nor they it."""
    for key, seconds in (("long", 5.0), ("x", 0.5), ("y", 0.5), ("also long", 4.5)):
        batcher.add(key, seconds, now_s=0.0)
    assert batcher.due(0.0) == ["also long", "long"]
    assert batcher.due(1.0) == ["y", "x"]


def test_an_utterance_beyond_the_budget_goes_alone(batcher):
    """The budget bounds company, not the length of one utterance."""
    batcher.add("a", 15.0, now_s=0.0)
    batcher.add("b", 15.0, now_s=0.0)
    assert batcher.due(0.0) == ["a"]
    assert batcher.due(1.0) == ["b"]


def test_the_oldest_is_always_taken(batcher):
    """Whatever else would fill a batch better, who came first goes first."""
    batcher.add("odd one", 9.0, now_s=0.0)
    for key in range(100):
        batcher.add(key, 1.0, now_s=0.0)
    assert batcher.due(0.0) == ["odd one"]


def test_what_is_discarded_is_not_batched(batcher):
    """Utterances of a client that is gone leave the queue; unknown ones do not matter."""
    batcher.add("a", 1.0, now_s=0.0)
    batcher.add("b", 1.0, now_s=0.0)
    batcher.discard(["a", "never seen"])
    assert batcher.due(0.0) == ["b"]


def test_a_key_waits_once(batcher):
    """Adding what already waits is an error of the caller."""
    batcher.add("a", 1.0, now_s=0.0)
    with pytest.raises(ValueError, match="already waits"):
        batcher.add("a", 1.0, now_s=0.0)


def test_a_client_that_floods_the_queue_waits_for_itself(batcher):
    """Behind 100 utterances of one client, another's single one is in the next batch but one at the latest."""
    for number in range(100):
        batcher.add(("flood", number), 3.0, now_s=0.0, client="flood")
    first = batcher.due(0.0)
    batcher.add("single", 3.0, now_s=0.1, client="other")
    second = batcher.due(1.0)
    assert len(first) == 3
    assert "single" in second


def test_two_busy_clients_share_by_seconds_of_audio(batcher):
    """A client with utterances twice as long gets as many seconds, not as many utterances."""
    for number in range(60):
        batcher.add(("long", number), 4.0, now_s=0.0, client="long")
        batcher.add(("short", number), 2.0, now_s=0.0, client="short")
    seconds = {"long": 0.0, "short": 0.0}
    for now_s in range(1, 21):
        for client, _ in batcher.due(float(now_s)):
            seconds[client] += {"long": 4.0, "short": 2.0}[client]
    assert seconds["long"] == pytest.approx(seconds["short"], rel=0.25)


def test_batches_are_as_long_as_the_device_is_fast():
    """Once it is known that a second of audio takes 100 ms, a run of half a second holds 5 s of it."""
    batcher = Batcher(batch_seconds=60.0, max_wait_s=0.0, max_run_s=0.5)
    for number in range(30):
        batcher.add(number, 1.0, now_s=0.0)
    assert len(batcher.due(0.0)) == 30
    batcher.learn(longest_s=1.0, padded_s=30.0, run_s=3.0)
    for number in range(30):
        batcher.add(number, 1.0, now_s=1.0)
    assert len(batcher.due(1.0)) == 5


def test_what_runs_cost_is_known_by_length():
    """That long utterances are dear does not make the batches of short ones smaller."""
    batcher = Batcher(batch_seconds=10.0, max_wait_s=0.0, max_run_s=0.5)
    batcher.learn(longest_s=15.0, padded_s=15.0, run_s=15.0)
    for number in range(10):
        batcher.add(number, 1.0, now_s=0.0)
    assert len(batcher.due(0.0)) == 10


def test_less_memory_makes_smaller_batches(batcher):
    """The budget may be lowered while it runs."""
    batcher.batch_seconds = 4.0
    for number in range(10):
        batcher.add(number, 1.0, now_s=0.0)
    assert len(batcher.due(0.0)) == 4


def test_the_realistic_mix_has_little_padding():
    """Of lognormal lengths, median 2.5 s, at most 15 s, batches hold less than 8 % of padding."""
    lengths_s = np.random.default_rng(1).lognormal(np.log(2.5), 0.7, 3_000).clip(0.4, 15.0)
    batcher = Batcher(batch_seconds=60.0, max_wait_s=0.02)
    useful_s = padded_s = utterances = batches = 0
    waiting = iter(enumerate(lengths_s))
    for _ in range(256):
        key, seconds = next(waiting)
        batcher.add(key, seconds, now_s=0.0)
    while (batch := batcher.due(1.0)) is not None:
        useful_s += sum(lengths_s[key] for key in batch)
        padded_s += len(batch) * max(lengths_s[key] for key in batch)
        utterances, batches = utterances + len(batch), batches + 1
        for key, seconds in [next(waiting, (None, None)) for _ in batch]:
            if key is not None:
                batcher.add(key, seconds, now_s=0.0)
    assert utterances == 3_000
    assert 1 - useful_s / padded_s < 0.08
    assert utterances / batches > 8


def test_a_long_utterance_does_not_hold_up_short_ones():
    """On a device of 25 s of audio per second at 70 % load, one of 15 s moves the others' p99 by less than a fifth."""

    def p99_ms(*, with_long):
        random = np.random.default_rng(7)
        lengths_s = random.lognormal(np.log(2.0), 0.3, 2_000).clip(0.4, 4.0)
        arrives_s = np.cumsum(random.exponential(lengths_s.mean() / (0.7 * 25.0), 2_000))
        arrivals = [
            (at_s, number, length) for number, (at_s, length) in enumerate(zip(arrives_s, lengths_s, strict=True))
        ]
        if with_long:
            arrivals = sorted([*arrivals, (arrives_s[1_000], "long", 15.0)], key=lambda arrival: arrival[0])
        return np.percentile([delay for key, delay in delays_ms(arrivals).items() if key != "long"], 99)

    assert p99_ms(with_long=True) < 1.2 * p99_ms(with_long=False)


def delays_ms(arrivals, *, rate=25.0):
    """How long each utterance waits and runs, on a device that hears `rate` seconds of audio per second."""
    batcher = Batcher(batch_seconds=60.0, max_wait_s=0.02, max_run_s=0.5)
    came_s, seconds_of, delays, now_s = {}, {}, {}, 0.0
    waiting = list(reversed(arrivals))
    while waiting or len(batcher):
        while waiting and waiting[-1][0] <= now_s:
            came, key, seconds = waiting.pop()
            came_s[key], seconds_of[key] = came, seconds
            batcher.add(key, seconds, came)
        batch = batcher.due(now_s)
        if batch is None:
            ahead = [waiting[-1][0]] if waiting else []
            now_s = max(min([*ahead, *([batcher.due_s()] if len(batcher) else [])]), np.nextafter(now_s, np.inf))
            continue
        padded_s = len(batch) * max(seconds_of[key] for key in batch)
        now_s += padded_s / rate
        batcher.learn(max(seconds_of[key] for key in batch), padded_s, padded_s / rate)
        delays |= {key: (now_s - came_s[key]) * 1000 for key in batch}
    return delays


def test_a_client_that_was_quiet_does_not_go_before_all_others(batcher):
    """Turns move on with what was served: time in which it asked nothing is no credit."""
    for number in range(6):
        batcher.add(("busy", number), 9.0, now_s=0.0, client="busy")
    for _ in range(4):
        batcher.due(1.0)
    for number in range(3):
        batcher.add(("quiet", number), 9.0, now_s=2.0, client="quiet")
    served = [key for _ in range(5) for key in batcher.due(3.0)]
    assert [client for client, _ in served[:4]] != ["quiet", "quiet", "quiet", "busy"]
