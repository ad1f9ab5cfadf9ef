"""Figures of constructed calls against the truth, which is known by construction."""

import numpy as np
import pytest
from telephony import RATE_HZ, Leg, analyse, both

from callmood.worker.g711 import encode_pcmu


def line(length_s: float, turns: list[tuple[float, float]], seed: int = 1, noise_dbfs: float = -66) -> bytes:
    """A line with noise and turns of a voice with syllables, as (start, length) in s; PCMU."""
    t = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(150 * (1 + 0.12 * np.sin(2 * np.pi * 2.3 * t + seed))) / RATE_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    loud = np.zeros(t.size)
    for at_s, turn_s in turns:
        loud[round(at_s * RATE_HZ) : round((at_s + turn_s) * RATE_HZ)] = 1
    noise = np.random.default_rng(seed).normal(0, 32768 * 10 ** (noise_dbfs / 20), t.size)
    return encode_pcmu(np.round(tone * loud * 2500 + noise).astype(np.int16))


def is_true(figure_ms: float, true_ms: float, turns: int = 0) -> bool:
    """Within 3 % or 200 ms; with many short turns, within 60 ms a turn."""
    return abs(figure_ms - true_ms) <= max(200, 0.03 * true_ms, 60 * turns)


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
