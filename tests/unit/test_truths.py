"""The truth table: constructed calls, and each figure of their aggregates within 3 % or 200 ms of the truth.

All calls but a few have the same turns, `CUSTOMER` and `AGENT`, in 32 s. What telephony does to them must not show.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from telephony import EPOCH_MS, RATE_HZ, Leg, Sent, Worker, both, in_time, is_true, line, log_of

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcmu, to_s16
from callmood.worker.records import Prediction, Speech, Utterance

CUSTOMER, AGENT = [(1.0, 3.0), (12.0, 4.0), (26.0, 3.0)], [(6.0, 4.0), (19.0, 5.0)]
LENGTH_S = 32
SHORT_MS = 1_000  # a beep; no turn is so short


def _audio(seed: int, noise_dbfs: float = -66) -> bytes:
    return line(LENGTH_S, CUSTOMER if seed == 1 else AGENT, seed, noise_dbfs)


def _samples(audio: bytes) -> np.ndarray:
    return to_s16(Encoding.PCMU, audio).astype(float)


def _pcmu(samples: np.ndarray) -> bytes:
    return encode_pcmu(np.clip(np.rint(samples), -32768, 32767).astype(np.int16))


def _call(customer: bytes, agent: bytes, chunk_ms: float = 200) -> list[Sent]:
    leg = Leg(layout="customer,agent")
    return [*leg.media(both(customer, agent), chunk_ms), leg.send("end")]


def _cut(audio: bytes, start_s: float, end_s: float = LENGTH_S, channels: int = 1) -> bytes:
    return audio[round(start_s * RATE_HZ) * channels : round(end_s * RATE_HZ) * channels]


# -- what telephony does


def clean() -> list[Sent]:
    return _call(_audio(1), _audio(2))


_SINGLE = set(np.random.default_rng(5).choice(LENGTH_S * 50, LENGTH_S * 50 // 20, replace=False).tolist())
"""5 % of the records of 20 ms, one at a time."""
_BURSTS = {first + more for first in np.random.default_rng(3).choice(1_590, 20, replace=False) for more in range(4)}
"""5 %, 80 ms at a time."""


def _missing_s(lost: set[int]) -> float:
    """How much of the turns, with 140 ms of padding on each side, is lost."""
    turns = [(start - 0.14, start + length + 0.14) for start, length in [*CUSTOMER, *AGENT]]
    return 0.02 * sum(start <= number / 50 < end for number in lost for start, end in turns)


def random_loss() -> list[Sent]:
    return [sent for number, sent in enumerate(_call(_audio(1), _audio(2), 20)) if number not in _SINGLE]


def bursty_loss() -> list[Sent]:
    return [sent for number, sent in enumerate(_call(_audio(1), _audio(2), 20)) if number not in _BURSTS]


def outage() -> list[Sent]:
    """A second between two turns is lost."""
    return [sent for n, sent in enumerate(_call(_audio(1), _audio(2), 20)) if not 525 <= n < 575]


def _suppressed(audio: bytes, turns: list[tuple[float, float]], leg: Leg) -> list[Sent]:
    sent = [leg.send("start")]
    for number in range(LENGTH_S * 50):
        is_said = any(start <= number / 50 < start + length + 0.2 for start, length in turns)
        sent += [leg.send("media", audio[number * 160 : number * 160 + 160])] if is_said else []
        leg.skip(0 if is_said else 20)
    return [*sent, leg.send("end")]


def silence_suppression(*, has_media_ms: bool = True) -> list[Sent]:
    customer = Leg(stream="customer", has_media_ms=has_media_ms)
    agent = Leg(stream="agent", layout="agent", has_media_ms=has_media_ms)
    return in_time(_suppressed(_audio(1), CUSTOMER, customer), _suppressed(_audio(2), AGENT, agent))


def silence_suppression_without_media_ms() -> list[Sent]:
    return silence_suppression(has_media_ms=False)


def comfort_noise() -> list[Sent]:
    """Fainter noise is filled in between the turns."""
    legs = []
    for seed, turns in ((1, CUSTOMER), (2, AGENT)):
        t = np.arange(LENGTH_S * RATE_HZ) / RATE_HZ
        is_said = np.any([(start <= t) & (t < start + length + 0.2) for start, length in turns], axis=0)
        legs.append(_pcmu(np.where(is_said, _samples(_audio(seed)), _samples(_audio(seed, -76)))))
    return _call(*legs)


def hold(length_s: float = 10) -> list[Sent]:
    """Between 11 s and the next turn, the call is on hold without a record."""
    leg = Leg(layout="customer,agent")
    audio = both(_audio(1), _audio(2))
    sent = [*leg.media(_cut(audio, 0, 11, 2)), leg.send("hold")]
    leg.skip(length_s * 1_000)
    return [*sent, leg.send("unhold"), *leg.media(_cut(audio, 11, channels=2)), leg.send("end")]


def long_hold() -> list[Sent]:
    return hold(900)


def pause_on_one_leg() -> list[Sent]:
    """The customer's gateway pauses from 10 to 12 s; nobody speaks."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    sent = [*customer.media(_cut(_audio(1), 0, 10)), customer.send("pause")]
    customer.skip(1_600)
    sent += [customer.send("resume"), *customer.media(_cut(_audio(1), 11.6)), customer.send("end")]
    return in_time(sent, [*agent.media(_audio(2)), agent.send("end")])


def transfer() -> list[Sent]:
    customer, one = Leg(stream="customer"), Leg(stream="one", layout="agent")
    two = Leg(stream="two", layout="agent", start_ms=EPOCH_MS + 15_000)
    return in_time(
        [*customer.media(_audio(1)), customer.send("end")],
        [*one.media(_cut(_audio(2), 0, 15)), one.send("end")],
        [*two.media(_cut(_audio(2), 15)), two.send("end")],
    )


def reconnect() -> list[Sent]:
    """The customer's stream is cut off at 18 s and comes again."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    again = Leg(stream="again", start_ms=EPOCH_MS + 18_000)
    return in_time(
        customer.media(_cut(_audio(1), 0, 18)),
        [*again.media(_cut(_audio(1), 18)), again.send("end")],
        [*agent.media(_audio(2)), agent.send("end")],
    )


def role_change() -> list[Sent]:
    """A machine says what the agent says in other calls until 15 s."""
    leg = Leg(layout="customer,ivr")
    audio = both(_audio(1), _audio(2))
    sent = leg.media(_cut(audio, 0, 15, 2))
    leg.layout = "customer,agent"
    return [*sent, *leg.media(_cut(audio, 15, channels=2)), leg.send("end")]


def _echoed() -> bytes:
    """The customer's channel with the agent 20 dB lower and 100 ms later."""
    agent, lag = _samples(_audio(2)), RATE_HZ // 10
    return _pcmu(_samples(_audio(1)) + np.concatenate([np.zeros(lag), agent[:-lag]]) / 10)


def echo() -> list[Sent]:
    return _call(_echoed(), _audio(2))


def echo_with_loss() -> list[Sent]:
    return [sent for number, sent in enumerate(_call(_echoed(), _audio(2), 20)) if number not in _SINGLE]


def drift() -> list[Sent]:
    """The agent's clock counts 300 ppm more samples than there are; ten times the call."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    rate, samples = 1 + 300e-6, np.frombuffer(_audio(2) * 10, np.uint8)
    at = np.minimum((np.arange(round(samples.size * rate)) / rate).astype(int), samples.size - 1)
    records = [*agent.media(samples[at].tobytes()), agent.send("end")]
    records = [sent._replace(at_ms=EPOCH_MS + (sent.at_ms - EPOCH_MS) / rate) for sent in records]
    return in_time([*customer.media(_audio(1) * 10), customer.send("end")], records)


def late_leg() -> list[Sent]:
    """The agent's leg begins at 5 s, and its first record arrives before all others."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent", start_ms=EPOCH_MS + 5_000)
    first, *rest = agent.media(_cut(_audio(2), 5))
    return [first, *in_time([*customer.media(_audio(1)), customer.send("end")], [*rest, agent.send("end")])]


def other_clock() -> list[Sent]:
    """The clock of the agent's gateway is a minute ahead."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent", start_ms=EPOCH_MS + 60_000)
    records = list(zip(customer.media(_audio(1)), agent.media(_audio(2)), strict=True))
    return [*(sent for pair in records for sent in pair), agent.send("end"), customer.send("end")]


def overtaken() -> list[Sent]:
    """The `end` of the agent's leg ends the call, before the last two seconds of the customer's leg arrive."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    records = customer.media(_audio(1))
    later = Leg("other", start_ms=EPOCH_MS + 1_000 * LENGTH_S)
    rest = [*records[-10:], *later.media(line(10, []))]  # the clock goes on
    return [*in_time(records[:-10], agent.media(_audio(2))), agent.send("end", scope="call"), *rest]


def overtaken_by_its_own_end() -> list[Sent]:
    """The `end` of the only stream arrives before its last two seconds, of which a record is lost."""
    *records, end = _call(_audio(1), _audio(2))
    later = Leg("other", start_ms=EPOCH_MS + 1_000 * LENGTH_S)
    return [*records[:-10], end, *records[-10:-4], *records[-3:], *later.media(line(10, []))]  # the clock goes on


def overlap() -> list[Sent]:
    """The agent begins two seconds before the customer is done, twice."""
    return _call(_audio(1), line(LENGTH_S, [(2.0, 4.0), (14.0, 4.0)], 2))


def long_silence() -> list[Sent]:
    return _call(line(92, CUSTOMER), line(92, AGENT, 2))


def gap() -> list[Sent]:
    """The gateway reports 5 s lost between two turns."""
    leg = Leg(layout="customer,agent")
    audio = both(_audio(1), _audio(2))
    sent = [*leg.media(_cut(audio, 0, 11, 2)), leg.send("gap", discarded_ms="5000")]
    leg.skip(5_000)
    return [*sent, *leg.media(_cut(audio, 11, channels=2)), leg.send("end")]


def mono() -> list[Sent]:
    """One channel has both parties."""
    leg = Leg(layout="mixed")
    return [*leg.media(_pcmu(_samples(_audio(1)) + _samples(_audio(2)))), leg.send("end")]


def recording_beep() -> list[Sent]:
    """1400 Hz for 0.4 s at 11, 17.5 and 31 s on both channels."""
    t = np.arange(LENGTH_S * RATE_HZ) / RATE_HZ
    is_on = np.any([(at <= t) & (t < at + 0.4) for at in (11, 17.5, 31)], axis=0)
    beep = 3_000 * np.sin(2 * np.pi * 1_400 * t) * is_on
    return _call(*(_pcmu(_samples(_audio(seed)) + beep) for seed in (1, 2)))


class Truth(NamedTuple):
    """All in seconds. `missing`: lost in a turn, or for long; `longest` is the longest silence."""

    talk: dict[str, float]
    non_talk: float = 13
    overlap: float = 0
    longest: float = 3
    duration: float = 32
    missing: float = 0
    paused: float = 0
    hold: float = 0
    interruptions: int = 0


TURNS = {"customer": 10.0, "agent": 9.0}
TABLE: list[tuple[Callable[[], list[Sent]], Truth]] = [
    (clean, Truth(TURNS)),
    (random_loss, Truth(TURNS, missing=_missing_s(_SINGLE))),
    (bursty_loss, Truth(TURNS, missing=_missing_s(_BURSTS))),
    (outage, Truth(TURNS, non_talk=12, missing=1)),
    (silence_suppression, Truth(TURNS)),
    (silence_suppression_without_media_ms, Truth(TURNS)),
    (comfort_noise, Truth(TURNS)),
    (hold, Truth(TURNS, duration=42, hold=10)),
    (long_hold, Truth(TURNS, duration=932, hold=900)),
    (pause_on_one_leg, Truth(TURNS, non_talk=11.4, paused=1.6)),
    (transfer, Truth(TURNS)),
    (reconnect, Truth(TURNS)),
    (role_change, Truth({"customer": 10, "ivr": 4, "agent": 5})),
    (echo, Truth(TURNS)),
    (echo_with_loss, Truth(TURNS, missing=1.5 * _missing_s(_SINGLE))),  # what is an echo is lost, too
    (drift, Truth({"customer": 100, "agent": 90}, non_talk=130, longest=4, duration=320)),
    (late_leg, Truth(TURNS)),
    (other_clock, Truth(TURNS)),
    (overtaken, Truth(TURNS)),
    (overtaken_by_its_own_end, Truth(TURNS)),
    (overlap, Truth({"customer": 10, "agent": 8}, non_talk=18, overlap=4, longest=8, interruptions=2)),
    (long_silence, Truth(TURNS, non_talk=73, longest=63, duration=92)),
    (gap, Truth(TURNS, duration=37, missing=5)),
    (mono, Truth({"mixed": 19})),
    (recording_beep, Truth(TURNS)),
]


def _checked(utterance: Utterance) -> Prediction:
    """A speech check that knows a tone from a voice."""
    is_tone = utterance.duration_ms < SHORT_MS
    return Prediction(None, speech=Speech(0.0, 0, 0) if is_tone else Speech(0.9, 0, utterance.end_ms))


@pytest.mark.parametrize(("sent", "truth"), TABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_each_figure_is_true(sent, truth):
    """Talk, silence, overlap, hold, pause, loss, length and interruptions are those of the call that was."""
    worker = Worker().read(log_of(sent()))
    for one in worker.waiting:
        worker.partition.answer(one.call_id, one.id, _checked(one), 0.0)
    call = worker.commit_answered().calls["call-1"]
    found = {
        "duration": call["duration_ms"],
        "non_talk": call["non_talk_ms"],
        "overlap": call["overlap_ms"],
        "longest": call["longest_silence_ms"],
        "missing": call["missing_ms"],
        "paused": call["redacted_ms"],
        "hold": call["hold_ms"],
    }
    false = {
        name: (ms / 1_000, getattr(truth, name))
        for name, ms in found.items()
        if not is_true(ms, 1_000 * getattr(truth, name))
    }
    talk = {role: figures["talk_ms"] for role, figures in call["roles"].items()}
    false |= {
        role: (talk.get(role, 0) / 1_000, seconds)
        for role, seconds in truth.talk.items()
        if not is_true(talk.get(role, 0), 1_000 * seconds)
    }
    assert not false
    assert talk.keys() == truth.talk.keys()
    assert sum(figures["interruptions"]["count"] for figures in call["roles"].values()) == truth.interruptions
