"""A result as the contract defines it: utterance/1. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from callmood.schemas.common import EMOTIONS, Kind, WithheldReason
from callmood.schemas.utterance import UTTERANCE_SCHEMA
from callmood.worker.records import ModelInfo, Prediction, Result


class Stamps(NamedTuple):
    """The fields that every record of this worker carries: the policy, and the model once it is known."""

    policy: Mapping[str, Any]
    model: ModelInfo | None


class Times(NamedTuple):
    """Wall-clock times of one utterance, in ms since 1970: when it closed, was answered and was rendered."""

    decided_ms: float
    known_ms: float
    rendered_ms: float


def utterance_record(result: Result, number: int, stamps: Stamps, times: Times | None) -> dict[str, Any]:
    """The utterance/1 record; `times` is None offline, where neither latency nor Kafka source exists."""
    utterance, prediction = result.utterance, result.prediction
    acoustics = utterance.acoustics
    return {
        "schema": UTTERANCE_SCHEMA,
        "utterance_id": utterance.id,
        "call_id": utterance.call_id,
        "number": number,
        "stream": utterance.stream,
        "channel": utterance.channel,
        "role": utterance.role.value,
        "start_ms": utterance.start_ms,
        "end_ms": utterance.end_ms,
        "spoken_at_ms": utterance.spoken_at_ms if times else None,
        "attributes": dict(utterance.attributes),
        "voiced_start_ms": utterance.voiced_start_ms,
        "voiced_end_ms": utterance.voiced_end_ms,
        **_speech(result),
        "echo": utterance.is_echo,
        "background": result.is_background,
        "emotion": _emotion(prediction) if prediction else None,
        "withheld": utterance.withheld or _no_speech(result),
        "acoustics": {
            "rms_dbfs": acoustics.rms_dbfs,
            "snr_db": acoustics.snr_db,
            "clipping": acoustics.clipping,
            "bandwidth_hz": acoustics.bandwidth_hz,
        },
        "quality": {
            "missing_ms": utterance.missing_ms,
            "overlap_ms": utterance.overlap_ms,
            "cut": utterance.cut.value,
            "looks_like": utterance.looks_like and utterance.looks_like.value,
        },
        "model": asdict(stamps.model) if prediction and stamps.model else None,
        "policy": dict(stamps.policy),
        "latency_ms": _latency(result, times) if times else {},
        "source": {
            "topic": utterance.first.topic,
            "partition": utterance.first.partition,
            "first_offset": utterance.first.offset,
            "last_offset": utterance.last.offset,
        }
        if times
        else None,
        "traceparent": utterance.traceparent,
    }


def _speech(result: Result) -> dict[str, Any]:
    start_ms, end_ms = result.voice_ms
    return {
        "kind": (Kind.SPEECH if result.is_speech else Kind.NOT_SPEECH).value,
        "speech_probability": result.speech.probability if result.speech else None,
        "speech_start_ms": start_ms if result.is_speech else None,
        "speech_end_ms": end_ms if result.is_speech else None,
    }


def _no_speech(result: Result) -> str | None:
    if result.is_speech:
        return None
    return (WithheldReason.BACKGROUND if result.is_background else WithheldReason.NOT_SPEECH).value


def _emotion(prediction: Prediction) -> dict[str, Any]:
    abstained = {"abstained": prediction.reason is not None, "reason": prediction.reason}
    if prediction.probabilities is None:
        return {"label": None, "probabilities": None, "confidence": None, **abstained}
    shares = {emotion.value: round(share, 6) for emotion, share in zip(EMOTIONS, prediction.probabilities, strict=True)}
    label = max(shares, key=lambda emotion: shares[emotion])
    return {"label": label, "probabilities": shares, "confidence": shares[label], **abstained}


def _latency(result: Result, times: Times) -> dict[str, float | None]:
    prediction, captured_ms = result.prediction, result.utterance.capture_end_ms
    return {
        "decide": round(max(0.0, times.decided_ms - captured_ms), 1),
        "queue": round(prediction.queue_ms, 1) if prediction else None,
        "inference": round(prediction.inference_ms, 1) if prediction else None,
        "publish": round(max(0.0, times.rendered_ms - times.known_ms), 1),
        "total": round(max(0.0, times.rendered_ms - captured_ms), 1),
    }
