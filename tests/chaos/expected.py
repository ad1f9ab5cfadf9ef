"""The expected results of a seed's calls, computed without the worker's commit path.

Shared with the worker are only: the voice detector and the rules of cutting (`worker.segment`), which hear each
stretch of audio whole here, the speech check, and the model with its engine. Nothing of the order of records, the
calls, the partitions, the states, the fold or the stores is used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from callmood.schemas.common import EMOTIONS
from callmood.worker.engine.check import SpeechCheck
from callmood.worker.engine.infer import Engine, open_engine
from callmood.worker.engine.parts import OTHER_SOUND, Sound, part_of
from callmood.worker.records import Cut, Span
from callmood.worker.settings import ModelSettings, SegmentSettings
from callmood.worker.speech.segment import Segmenter
from tests.chaos.telephone import RATE_HZ, Leg, Plan

_BATCH = 32
_CUTS = {"pause": Cut.PAUSE, "gap": Cut.GAP}


@dataclass
class Said:
    """An expected utterance; `emotion` holds probabilities once the model was asked."""

    id: str
    stream: str
    channel: int
    role: str
    start_ms: int
    end_ms: int
    speech_start_ms: int | None
    speech_end_ms: int | None
    audio: bytes
    encoding: Any
    kind: str = "speech"
    probabilities: dict[str, float] | None = None
    reason: str | None = None


def utterances(plan: Plan, offsets_ms: Mapping[str, int]) -> list[Said]:
    """All utterances of a call; `offsets_ms` says where each stream begins on the call's time line."""
    said: list[Said] = []

    def ms(leg: Leg, sample: int) -> int:
        return offsets_ms[leg.name] + round(sample * 1000 / RATE_HZ)

    for leg in plan.legs:
        for channel, role in enumerate(plan.layout):
            said.extend(
                Said(
                    id=f"{plan.call_id}:{leg.name}:{channel}:{span.start_sample}",
                    stream=leg.name,
                    channel=channel,
                    role=role,
                    start_ms=ms(leg, span.start_sample),
                    end_ms=ms(leg, span.end_sample),
                    speech_start_ms=ms(leg, span.voiced_start_sample),
                    speech_end_ms=ms(leg, span.voiced_end_sample),
                    audio=span.audio,
                    encoding=plan.encoding,
                )
                for span in _spans(plan, leg, channel)
            )
    return said


def _spans(plan: Plan, leg: Leg, channel: int) -> Iterable[Span]:
    segmenter = Segmenter(plan.encoding, RATE_HZ, SegmentSettings())
    for number, stretch in enumerate(leg.stretches):
        segmenter.skip_to(stretch.first_sample)
        yield from segmenter.feed(stretch.first_sample, stretch.channels[channel])
        yield from segmenter.close(_CUTS[leg.breaks[number].kind] if number < len(leg.breaks) else Cut.END)


def judge(said: list[Said]) -> None:
    """Check each utterance, and ask the model about the customers' speech, as the policy's default has it."""
    check = SpeechCheck.open()
    engine: Engine = open_engine(ModelSettings(device="cpu", threads=2))
    parts = {one.id: _check(one, check) for one in said}
    asked = [one for one in said if one.role == "customer" and one.kind == "speech" and one.reason is None]
    asked.sort(key=lambda one: len(parts[one.id][2]))
    for first in range(0, len(asked), _BATCH):
        batch = asked[first : first + _BATCH]
        answers = engine.predict([parts[one.id] for one in batch])
        for one, answer in zip(batch, answers, strict=True):
            one.reason = answer.reason
            if answer.probabilities is not None:
                named = zip(EMOTIONS, answer.probabilities, strict=True)
                one.probabilities = {emotion.value: share for emotion, share in named}


def _check(one: Said, check: SpeechCheck) -> Sound:
    """Note what the check finds in an utterance; returns what the model is to hear of it."""
    sound = (one.encoding, RATE_HZ, one.audio)
    speech = check.judge(sound)
    assert speech is not None
    if not speech.is_speech:
        one.kind, one.speech_start_ms, one.speech_end_ms = "not_speech", None, None
        return sound
    assert one.speech_start_ms is not None
    assert one.speech_end_ms is not None
    start_ms = max(one.speech_start_ms, one.start_ms + speech.start_ms)
    end_ms = min(one.speech_end_ms, one.start_ms + speech.end_ms)
    if start_ms < end_ms:
        one.speech_start_ms, one.speech_end_ms = start_ms, end_ms
    one.reason = OTHER_SOUND.value if speech.is_sparse else None
    return part_of(sound, speech)
