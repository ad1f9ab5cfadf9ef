"""Lost audio: its concealment, and its effect on a call's figures."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from telephony import RATE_HZ, Leg, both, facts, log_of
from telephony import Worker as Life

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcma, encode_pcmu, to_s16
from callmood.worker.speech.conceal import fill

_ENCODE = {Encoding.PCMU: encode_pcmu, Encoding.PCMA: encode_pcma, Encoding.S16LE: lambda pcm: pcm.tobytes()}
_FIGURES = ("talk_ms", "non_talk_ms", "longest_silence_ms")


@pytest.mark.parametrize("encoding", _ENCODE)
def test_the_sound_before_is_repeated_and_faded(encoding):
    """60 ms after the loss began the repeated sound has faded to silence, in every encoding."""
    tone = np.full(800, 8000, np.int16)
    audio = _ENCODE[encoding](np.concatenate([tone, np.zeros(800, np.int16), tone]))
    filled = to_s16(encoding, fill(encoding, RATE_HZ, audio, [(800, 1600)])).astype(int)
    assert filled[800] == pytest.approx(8000, rel=0.04)
    assert filled[800 + 240] == pytest.approx(4000, rel=0.06)
    assert np.abs(filled[800 + 480 : 1600]).max() <= 8
    assert filled[1600:] == pytest.approx(8000, rel=0.04)


def test_a_loss_at_the_very_beginning_stays_silent():
    """Nothing is there to repeat."""
    audio = bytes(320) + b"\x01\x20" * 160
    assert fill(Encoding.S16LE, RATE_HZ, audio, [(0, 160)]) == audio


def test_each_loss_is_filled_from_what_came_before_it():
    """Two losses, one after the other: the second repeats the sound between them."""
    pcm = np.repeat(np.array([1000, 0, 3000, 0], np.int16), 160)
    filled = to_s16(Encoding.S16LE, fill(Encoding.S16LE, RATE_HZ, pcm.tobytes(), [(160, 320), (480, 640)]))
    assert (filled[160], filled[480]) == (1000, 3000)


def _line(seed: int, turns: list[tuple[float, float]], noise_dbfs: float) -> bytes:
    """30 s of a line with noise, and turns of a voice with syllables as (start, length) in s."""
    t = np.arange(30 * RATE_HZ) / RATE_HZ
    pitch_hz = 140 * (1 + 0.12 * np.sin(2 * np.pi * 2.3 * t + seed))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    loud = sum(((t >= at) & (t < at + length)).astype(float) for at, length in turns)
    noise = np.random.default_rng(seed).normal(0, 32768 * 10 ** (noise_dbfs / 20), t.size)
    return encode_pcmu(np.round(tone * loud * 2500 + noise).astype(np.int16))


def _kept(share: float, burst: int) -> Iterator[bool]:
    """Which records come: losses in bursts of this mean length, at most 300 ms, with this share in all."""
    random = np.random.default_rng(round(1000 * share) + burst)
    while True:
        for _ in range(random.geometric(share / (1 - share) / burst)):
            yield True
        for _ in range(min(15, random.geometric(1 / burst))):
            yield False


@cache
def _call(noise_dbfs: float, record_ms: int, share: float, burst: int):
    customer = _line(1, [(3, 4), (13, 3), (24, 3)], noise_dbfs)
    agent = _line(2, [(9, 3), (19, 3)], noise_dbfs)
    leg = Leg(layout="customer,agent")
    sent = leg.media(both(customer, agent), chunk_ms=record_ms)
    kept = [item for item, comes in zip(sent, _kept(share, burst), strict=False) if comes] if share else sent
    return facts(Life().read(log_of([*kept, leg.send("end")])).commit())


@pytest.mark.parametrize("noise_dbfs", [-50, -65])
@pytest.mark.parametrize("burst", [1, 3, 8])
@pytest.mark.parametrize("share", [0.01, 0.03, 0.05, 0.1])
def test_lost_records_leave_the_figures_as_they_are(share, burst, noise_dbfs):
    """Figures at 1 to 10 % of lost 20 ms records, alone and in bursts, are within 5 % of those without a loss.

    A role with two turns may have lost the begin of one and the end of another in a burst.
    """
    _, whole = _call(noise_dbfs, 20, 0, 1)
    _, lossy = _call(noise_dbfs, 20, share, burst)
    for name in _FIGURES:
        assert lossy[name] == pytest.approx(whole[name], rel=0.05, abs=100), name
    for role, figures in whole["roles"].items():
        assert lossy["roles"][role]["talk_ms"] == pytest.approx(figures["talk_ms"], rel=0.05, abs=100 * burst)
        assert lossy["roles"][role]["interruptions"]["count"] == 0
    assert lossy["overlap_ms"] <= whole["overlap_ms"] + 100


@pytest.mark.parametrize("record_ms", [10, 30, 60, 100])
def test_the_length_of_a_record_does_not_matter(record_ms):
    """A tenth of all records of any length is lost, and a quiet room stays quiet."""
    _, whole = _call(-55, record_ms, 0, 1)
    _, lossy = _call(-55, record_ms, 0.1, 1)
    for name in ("talk_ms", "non_talk_ms"):
        assert lossy[name] == pytest.approx(whole[name], rel=0.05), name


@pytest.mark.parametrize("silence", [b"\xff", b"\x7f"])
def test_digital_silence_in_the_audio_does_not_make_noise_speech(silence):
    """A gateway that fills in silence for a tenth of its packets, or a gate on the line, wakes no detector."""
    noise, random = bytearray(_line(3, [], -50)), np.random.default_rng(3)
    for first in range(0, len(noise), 160):
        if random.random() < 0.1 or (160 * 500 <= first < 160 * 1000 and first // 1280 % 2):
            noise[first : first + 160] = silence * 160
    utterances, _ = facts(Life().read(log_of([*(leg := Leg()).media(bytes(noise)), leg.send("end")])).commit())
    assert utterances == []
