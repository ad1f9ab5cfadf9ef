"""Twilio's streams of a call: what stops, pauses and doubles, through the real `Partition`."""

import base64
import json
from functools import partial

import pytest
from telephony import CONFIGURED, EPOCH_MS, SOURCE, Sent, Worker, log_of, quiet, voice

from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.stream_time import StreamTime

SENTENCE = quiet(0.6) + voice(1) + quiet(1.4)


def twilio(sid: str, audio: bytes, at_s: float = 0.0, *, is_stopped: bool = True, **parameters: object) -> list[Sent]:
    """The messages of one stream with one track."""
    start = {"callSid": "call-1", "customParameters": parameters}
    messages: list[tuple[float, dict]] = [(0, {"event": "start", "start": start})]
    for number, first in enumerate(range(0, len(audio), 160)):
        payload = base64.b64encode(audio[first : first + 160]).decode()
        media = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(number * 20), "payload": payload}
        messages.append((number * 20, {"event": "media", "media": media}))
    if is_stopped:
        messages.append((len(messages) * 20, {"event": "stop", "stop": {"callSid": "call-1"}}))
    return [
        Sent(
            EPOCH_MS + at_s * 1_000 + at_ms,
            "call-1",
            {"role_inbound": "customer"},
            json.dumps({**message, "streamSid": sid}).encode(),
        )
        for at_ms, message in messages
    ]


def analyse_twilio(sent: list[Sent]):
    """All of a log of Twilio messages."""
    worker = Worker()
    reader = partial(decode.decode, input_format="twilio", max_record_ms=5_000)
    worker.partition = Partition(SOURCE, Restored(0, StreamTime(), {}), reader, CONFIGURED, DEFAULT_RULES)
    return worker.read(log_of(sent)).commit()


def test_stop_and_start_is_a_pause_of_the_analysis():
    """A card number is read between them: the call goes on, and the time is neither silence nor missing."""
    store = analyse_twilio([*twilio("MZ1", SENTENCE), *twilio("MZ2", SENTENCE, 10)])
    call = store.calls["call-1"]
    assert (call["status"], call["utterances"], call["missing_ms"]) == ("live", 2, 0)
    assert call["redacted_ms"] == pytest.approx(7_000, abs=100)
    assert [u["voiced_start_ms"] for u in store.of()] == pytest.approx([600, 10_600], abs=40)


@pytest.mark.parametrize("later_s", [0.04, 1.0])
def test_a_second_stream_of_a_track_doubles_nothing(later_s):
    """Two streams of one call bring the same: it is counted once."""
    once = analyse_twilio(twilio("MZ1", SENTENCE * 2)).calls["call-1"]
    two = [*twilio("MZ1", SENTENCE * 2), *twilio("MZ2", (SENTENCE * 2)[round(later_s * 8_000) :], later_s)]
    twice = analyse_twilio(sorted(two, key=lambda item: item.at_ms)).calls["call-1"]
    for name in ("utterances", "talk_ms", "overlap_ms"):
        assert twice[name] == once[name], name


def test_the_second_stream_goes_on_when_the_first_stops():
    """What only the second one brings is heard."""
    two = [*twilio("MZ1", SENTENCE * 2), *twilio("MZ2", SENTENCE * 4)]
    store = analyse_twilio(sorted(two, key=lambda item: item.at_ms))
    assert [u["voiced_start_ms"] // 1_000 for u in store.of()] == [0, 3, 6, 9]


def test_the_next_copy_is_heard_although_one_before_it_has_stopped():
    """Of three streams with one track, the second stops first: when the first one stops, the third is heard."""
    three = [*twilio("MZ1", SENTENCE * 2), *twilio("MZ2", SENTENCE), *twilio("MZ3", SENTENCE * 4)]
    store = analyse_twilio(sorted(three, key=lambda item: item.at_ms))
    assert [u["voiced_start_ms"] // 1_000 for u in store.of()] == [0, 3, 6, 9]


@pytest.mark.parametrize("late", [1, 25, 100, 10_000])
def test_audio_that_a_stop_overtakes_counts(late):
    """A `stop` arrives before messages that Twilio sent before it, or before all of them: the figures are the same."""
    first, rest = twilio("MZ1", SENTENCE + quiet(0.6) + voice(1)), twilio("MZ2", SENTENCE, 10)
    true = analyse_twilio([*first, *rest]).calls["call-1"]
    *messages, stop = first
    messages.insert(max(1, len(messages) - late), stop)
    call = analyse_twilio([*messages, *rest]).calls["call-1"]
    for name in ("talk_ms", "non_talk_ms", "duration_ms", "redacted_ms", "missing_ms", "overlap_ms"):
        assert call[name] == pytest.approx(true[name], abs=200), name


@pytest.mark.parametrize("bad", ["x" * 300, "two\nlines", None])
def test_one_bad_parameter_costs_itself(bad):
    """The other parameters of the `start` stay."""
    store = analyse_twilio(twilio("MZ1", SENTENCE, queue="billing", bad=bad, notice="given"))
    call = store.calls["call-1"]
    assert (call["attributes"], call["notice"], store.dead) == ({"queue": "billing"}, "given", {})
    assert analyse_twilio(twilio("MZ1", SENTENCE, notice="yes")).calls["call-1"]["notice"] is None
