"""Figures of constructed calls against the truth, which is known by construction."""

import numpy as np
import pytest
from telephony import EPOCH_MS, RATE_HZ, Leg, analyse, both, in_time, is_true, line


@pytest.mark.parametrize("gap_s", [0.2, 0.35, 0.8, 3.5])
def test_turns_that_follow_each_other_are_as_long_as_they_were(gap_s):
    """Talk, silence and overlap of 100 s of short turns are true, however close the turns are."""
    turns, at_s = [[], []], 1.0
    while at_s < 95:
        for side in turns:
            side.append((at_s, 1.66))
            at_s += 1.66 + gap_s
    leg = Leg(layout="customer,agent")
    audio = both(line(100, turns[0]), line(100, turns[1], seed=2))
    call = analyse([*leg.media(audio), leg.send("end")]).calls["call-1"]
    count = sum(map(len, turns))
    talk_ms = 1_660 * count
    silences = [gap_s] * (count - 1) if gap_s >= 3 else []
    rest_s = 100 - turns[1][-1][0] - 1.66
    silences += [rest_s] if rest_s >= 3 else []
    assert is_true(call["talk_ms"], talk_ms)
    assert is_true(call["non_talk_ms"], 100_000 - talk_ms, count)
    assert call["overlap_ms"] == 0
    assert call["overlaps"]["count"] == 0
    assert call["silences"]["count"] == len(silences)
    assert is_true(call["silences"]["total_ms"], 1_000 * sum(silences), count)
    for role, side in zip(("customer", "agent"), turns, strict=True):
        assert is_true(call["roles"][role]["talk_ms"], 1_660 * len(side), len(side))
        assert call["roles"][role]["interruptions"]["count"] == 0


_CUSTOMER, _AGENT = [(1.0, 3.0), (12.0, 4.0), (26.0, 3.0)], [(6.0, 4.0), (19.0, 5.0)]


def _legs(skew_ms: float = 0, agent_from_s: float = 0) -> tuple[list, list]:
    """A call of 32 s without overlap, with a stream for each leg; the agent's clock is off, or the leg begins late."""
    customer = Leg(stream="customer")
    agent = Leg(stream="agent", layout="agent", start_ms=EPOCH_MS + agent_from_s * 1_000 + skew_ms)
    heard = line(32, _AGENT, seed=2)[round(agent_from_s * RATE_HZ) :]
    return [*customer.media(line(32, _CUSTOMER)), customer.send("end", scope="call")], agent.media(heard)


def _check(call) -> None:
    assert is_true(call["duration_ms"], 32_000)
    assert is_true(call["talk_ms"], 19_000)
    assert is_true(call["non_talk_ms"], 13_000)
    assert call["overlap_ms"] <= 200
    assert is_true(call["roles"]["customer"]["talk_ms"], 10_000)
    assert is_true(call["roles"]["agent"]["talk_ms"], 9_000)
    assert not any(role["interruptions"]["count"] for role in call["roles"].values())
    assert call["missing_ms"] == 0


def _by_truth(customer: list, agent: list, skew_ms: float = 0, lag_ms: float = 0) -> list:
    """The records in the order of their arrival; the agent's clock is off, or they are on their way for longer."""
    arrivals = [(item.at_ms, item) for item in customer]
    arrivals += [(item.at_ms - skew_ms + lag_ms, item) for item in agent]
    end = arrivals.pop(len(customer) - 1)
    return [item for _, item in sorted(arrivals, key=lambda arrival: arrival[0])] + [end[1]]


@pytest.mark.parametrize("skew_ms", [20_000, 60_000, 600_000, -15_000, -60_000, -600_000])
def test_a_leg_whose_clock_is_off_is_put_where_it_arrived(skew_ms):
    """Clocks of gateways that differ by more than 10 s do not pull a conversation apart."""
    _check(analyse(_by_truth(*_legs(skew_ms), skew_ms)).calls["call-1"])


@pytest.mark.parametrize("lag_ms", [500, 5_000, 20_000, 60_000])
def test_a_leg_that_arrives_late_lies_where_it_was_captured(lag_ms):
    """A slow gateway delays, and moves nothing."""
    _check(analyse(_by_truth(*_legs(), lag_ms=lag_ms)).calls["call-1"])


@pytest.mark.parametrize("from_s", [0, 3, 5])
def test_a_leg_that_begins_late_and_overtakes_the_other_moves_nothing(from_s):
    """The first record of a leg that was captured later arrives first: the call begins with the earlier leg."""
    customer, agent = _legs(agent_from_s=from_s)
    _check(analyse([agent[0], *in_time(customer[:-1], agent[1:]), customer[-1]]).calls["call-1"])


@pytest.mark.parametrize("ppm", [300, -300])
def test_drift_invents_no_interruption(ppm):
    """20 minutes of strict turn taking, the samples of one leg at another rate: nobody interrupts.

    At the end the samples are 360 ms off, more than the 300 ms between two turns.
    """
    minutes = 20
    block_s = 8
    sent = []
    for name, first_s, rate in (("customer", 0.5, 1.0), ("agent", 4.5, 1 + ppm * 1e-6)):
        leg = Leg(stream=name, layout=name)
        samples = line(block_s, [(first_s, 3.7)], seed=len(name)) * (minutes * 60 // block_s)
        true = np.arange(round(len(samples) * rate)) / rate  # one clock counts more samples in the same time
        heard = np.frombuffer(samples, np.uint8)[np.minimum(true.astype(int), len(samples) - 1)].tobytes()
        records = leg.media(heard)
        sent.append([r._replace(at_ms=EPOCH_MS + (r.at_ms - EPOCH_MS) / rate) for r in records])
        sent[-1].append(leg.send("end")._replace(at_ms=EPOCH_MS + minutes * 60_000))
    call = analyse(in_time(*sent)).calls["call-1"]
    turns = minutes * 60 // block_s
    assert call["overlap_ms"] == 0
    assert not any(role["interruptions"]["count"] for role in call["roles"].values())
    assert is_true(call["talk_ms"], 2 * turns * 3_700, 2 * turns)
    assert is_true(call["duration_ms"], minutes * 60_000)


def _suppressed(leg: Leg, audio: bytes, turns: list[tuple[float, float]]) -> list:
    """20 ms records of what is said and 200 ms after it; nothing is sent in between."""
    sent = []
    for number in range(len(audio) // 160):
        at_s = number / 50
        if any(start <= at_s < start + length + 0.2 for start, length in turns):
            sent.append(leg.send("media", audio[number * 160 : number * 160 + 160]))
        else:
            leg.skip(20)
    return sent


@pytest.mark.parametrize("has_media_ms", [True, False])
@pytest.mark.parametrize("begins", [True, False])
def test_silence_suppression_leaves_the_figures_as_they_are(begins, has_media_ms):
    """Nothing is sent while nobody speaks, with and without media time: nothing is missing and silence is silence."""
    sent = []
    for name, turns, seed in (("customer", _CUSTOMER, 1), ("agent", _AGENT, 2)):
        leg = Leg(stream=name, layout=name, has_media_ms=has_media_ms)
        start = [leg.send("start")] if begins or name == "customer" else []
        records = _suppressed(leg, line(32, turns, seed), turns)
        sent.append([*start, *records, leg.send("end")])
    _check(analyse(in_time(*sent)).calls["call-1"])


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_loss_leaves_the_figures_as_they_are(share):
    """Records of both legs are lost at random: the figures are those of the whole call."""
    random = np.random.default_rng(round(1_000 * share))
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    legs = [customer.media(line(32, _CUSTOMER), 20), agent.media(line(32, _AGENT, seed=2), 20)]
    kept = [[record for record in leg if random.random() >= share] for leg in legs]
    sent = [*in_time(*kept), agent.send("end"), customer.send("end")]
    call = analyse(sent).calls["call-1"]
    assert 0 < call["missing_ms"] <= 2 * 32_000 * share * 2
    _check({**call, "missing_ms": 0})
