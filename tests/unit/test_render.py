"""utterance/1, field by field, with known and with unknown values."""

from dataclasses import fields, replace

import pytest
from telephony import EPOCH_MS, SOURCE, STAMPS

from callmood.schemas.common import Encoding, LooksLike, Role
from callmood.schemas.utterance import Utterance as Contract
from callmood.schemas.utterance import label_or_reason
from callmood.worker.call.render import Times, utterance_record
from callmood.worker.records import Acoustics, Cut, Position, Prediction, Result, Speech, Utterance

UTTERANCE = Utterance(
    id="call-1:0:0:3680",
    call_id="call-1",
    stream="0",
    channel=0,
    role=Role.CUSTOMER,
    start_ms=460,
    end_ms=1_860,
    capture_end_ms=EPOCH_MS + 1_860,
    encoding=Encoding.PCMU,
    rate_hz=8000,
    audio=b"\xff" * 11_200,
    cut=Cut.SILENCE,
    missing_ms=20,
    overlap_ms=30,
    acoustics=Acoustics(-23.5, 31.0, 0.001, 3_400),
    first=Position(*SOURCE, 4),
    last=Position(*SOURCE, 9),
    withheld=None,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
PREDICTION = Prediction((0.1, 0.2, 0.65, 0.05), queue_ms=12.34, inference_ms=45.67)
TIMES = Times(decided_ms=EPOCH_MS + 2_400.0, known_ms=EPOCH_MS + 2_500.0, rendered_ms=EPOCH_MS + 2_650.0)


def rendered(prediction=PREDICTION, times=TIMES, speech=None, **changes):
    """The record, which must be legal."""
    record = utterance_record(Result(replace(UTTERANCE, **changes), prediction, speech), 3, STAMPS, times)
    Contract.model_validate(record)
    return record


def test_what_is_known_is_told():
    """Identity, place, role, acoustics, quality, source and policy stand in the record."""
    record = rendered()
    assert record["utterance_id"] == UTTERANCE.id
    assert (record["number"], record["role"], record["start_ms"], record["end_ms"]) == (3, "customer", 460, 1_860)
    assert record["acoustics"] == {"rms_dbfs": -23.5, "snr_db": 31.0, "clipping": 0.001, "bandwidth_hz": 3_400}
    assert record["quality"] == {"missing_ms": 20, "overlap_ms": 30, "cut": "silence", "looks_like": None}
    assert record["source"] == {"topic": "audio", "partition": 0, "first_offset": 4, "last_offset": 9}
    assert record["policy"] == STAMPS.policy
    assert record["model"] == {"id": "m", "version": "1", "digest": "sha256:0"}
    assert record["traceparent"] == UTTERANCE.traceparent
    assert "audio" not in record


def test_the_background_is_no_speech_of_the_role():
    """It says why it has no emotion, and what the speech check found; the policy's reason comes first."""
    speech = Speech(0.9, 0, 1_400)
    for withheld, reason in ((None, "background"), ("policy:role_agent", "policy:role_agent")):
        said = Result(replace(UTTERANCE, withheld=withheld), None, speech, is_background=True)
        record = utterance_record(said, 3, STAMPS, TIMES)
        Contract.model_validate(record)
        assert (record["background"], record["kind"], record["withheld"]) == (True, "not_speech", reason)
        assert (record["speech_probability"], record["speech_end_ms"]) == (0.9, None)
        assert label_or_reason(record) == "background"


def test_a_wrong_encoding_is_told():
    """What the audio looks like stands beside the other facts of its quality."""
    assert rendered(looks_like=LooksLike.PCMA)["quality"]["looks_like"] == "pcma"


def test_the_label_is_the_likeliest_emotion():
    """Probabilities have names, and the confidence is that of the label."""
    emotion = rendered()["emotion"]
    assert emotion["probabilities"] == {"anger": 0.1, "happiness": 0.2, "neutral": 0.65, "sadness": 0.05}
    assert (emotion["label"], emotion["confidence"]) == ("neutral", 0.65)
    assert (emotion["abstained"], emotion["reason"]) == (False, None)


def test_an_abstention_keeps_the_label_and_says_why():
    """The label is shown for people, and marked as not to be used."""
    emotion = rendered(replace(PREDICTION, reason="low_confidence"))["emotion"]
    assert (emotion["label"], emotion["abstained"], emotion["reason"]) == ("neutral", True, "low_confidence")


def test_a_failed_inference_has_no_label():
    """Nothing is invented where the model could not answer."""
    emotion = rendered(Prediction(None, "inference_failed"))["emotion"]
    assert emotion == {
        "label": None,
        "probabilities": None,
        "confidence": None,
        "abstained": True,
        "reason": "inference_failed",
    }


def test_what_the_model_may_not_hear_names_no_model():
    """Where the policy withholds emotion, the reason stands in its place."""
    record = rendered(None, role=Role.AGENT, withheld="policy:role_agent")
    assert (record["emotion"], record["model"], record["withheld"]) == (None, None, "policy:role_agent")
    assert record["latency_ms"]["queue"] is None
    assert record["latency_ms"]["inference"] is None


def speech_of(record):
    names = ("kind", "speech_probability", "speech_start_ms", "speech_end_ms", "withheld")
    return tuple(record[name] for name in names)


def test_the_verdict_of_the_speech_check_is_told():
    """Speech has the voiced part that counts; another sound has none, and a reason for having no emotion."""
    part = Speech(0.851, 40, 1_401)
    assert speech_of(rendered(speech=part)) == ("speech", 0.851, 500, 1_860, None)
    assert speech_of(rendered()) == ("speech", None, 460, 1_860, None)
    voiced = rendered(speech=part, voiced_start_ms=600, voiced_end_ms=1_720)
    assert speech_of(voiced) == ("speech", 0.851, 600, 1_720, None)
    padding = rendered(speech=Speech(0.3, 0, 100), voiced_start_ms=600, voiced_end_ms=1_720)
    assert speech_of(padding) == ("speech", 0.3, 600, 1_720, None)
    nobody = Speech(0.021, 0, 0)
    assert speech_of(rendered(None, speech=nobody)) == ("not_speech", 0.021, None, None, "not_speech")
    of_agent = rendered(None, speech=nobody, role=Role.AGENT, withheld="policy:role_agent")
    assert speech_of(of_agent) == ("not_speech", 0.021, None, None, "policy:role_agent")


def test_latencies_add_up_from_the_last_sample():
    """`decide` ends with the close of the span, `publish` with the record, `total` is all of it."""
    assert rendered()["latency_ms"] == {
        "decide": 540.0,
        "queue": 12.3,
        "inference": 45.7,
        "publish": 150.0,
        "total": 790.0,
    }


def test_a_gateway_whose_clock_is_ahead_gives_no_negative_latency():
    """Where the capture lies in the future, the latency is 0."""
    latency_ms = rendered(capture_end_ms=EPOCH_MS + 3_600_000)["latency_ms"]
    assert latency_ms["decide"] == latency_ms["total"] == 0.0


def test_offline_there_is_neither_latency_nor_source():
    """What only exists live is left out."""
    record = rendered(times=None)
    assert record["latency_ms"] == {}
    assert record["source"] is None


OTHER = {
    "id": "call-1:0:0:9", "call_id": "call-2", "stream": "1", "channel": 1, "role": Role.MIXED, "start_ms": 400,
    "end_ms": 1_900, "capture_end_ms": EPOCH_MS, "cut": Cut.FORCED, "missing_ms": 40, "overlap_ms": 60,
    "acoustics": Acoustics(-20.0, 30.0, 0.0, 3_000), "first": Position(*SOURCE, 3), "last": Position(*SOURCE, 10),
    "withheld": "policy:role_agent", "traceparent": None, "voiced_start_ms": 500, "voiced_end_ms": 1_800,
    "spoken_at_ms": EPOCH_MS, "attributes": {"queue": "sales"}, "is_echo": True, "looks_like": LooksLike.PCMA,
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Utterance)])
def test_each_fact_of_an_utterance_is_told(name):
    """All but the audio and its form, which nobody needs to know; a new fact needs a value here."""
    if name in ("audio", "encoding", "rate_hz"):
        assert name not in OTHER
    else:
        other = Result(replace(UTTERANCE, **{name: OTHER[name]}), PREDICTION)
        assert utterance_record(other, 3, STAMPS, TIMES) != rendered()
