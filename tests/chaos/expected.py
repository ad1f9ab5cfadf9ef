"""What must come out of a seed's calls, found without the worker's commit path.

Shared with the worker are only: the voice detector and the rules of cutting (`worker.segment`), which hear each
stretch of audio whole here, and the model with its engine. Nothing of the order of records, the calls, the partitions,
the states, the fold or the stores is used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from callmood.schemas.common import EMOTIONS
from callmood.worker.engine.infer import Engine, open_engine
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
    audio: bytes
    encoding: Any
    probabilities: dict[str, float] | None = None
    reason: str | None = None


def utterances(plan: Plan, offsets_ms: Mapping[str, int]) -> list[Said]:
    """All utterances of a call; `offsets_ms` says where each stream begins on the call's time line."""
    said = []
    for leg in plan.legs:
        for channel, role in enumerate(plan.layout):
            for span in _spans(plan, leg, channel):
                start, end = span.start_sample, span.end_sample
                said.append(
                    Said(
                        id=f"{plan.call_id}:{leg.name}:{channel}:{start}",
                        stream=leg.name,
                        channel=channel,
                        role=role,
                        start_ms=offsets_ms[leg.name] + round(start * 1000 / RATE_HZ),
                        end_ms=offsets_ms[leg.name] + round(end * 1000 / RATE_HZ),
                        audio=span.audio,
                        encoding=plan.encoding,
                    )
                )
    return said


def _spans(plan: Plan, leg: Leg, channel: int) -> Iterable[Span]:
    segmenter = Segmenter(plan.encoding, RATE_HZ, SegmentSettings())
    for number, stretch in enumerate(leg.stretches):
        segmenter.skip_to(stretch.first_sample)
        yield from segmenter.feed(stretch.first_sample, stretch.channels[channel])
        yield from segmenter.close(_CUTS[leg.breaks[number].kind] if number < len(leg.breaks) else Cut.END)


def judge(said: list[Said]) -> None:
    """Ask the model about the customers' utterances, as the policy's default has it."""
    engine: Engine = open_engine(ModelSettings(device="cpu", threads=2))
    asked = sorted((one for one in said if one.role == "customer"), key=lambda one: len(one.audio))
    for first in range(0, len(asked), _BATCH):
        batch = asked[first : first + _BATCH]
        answers = engine.predict([(one.encoding, RATE_HZ, one.audio) for one in batch])
        for one, answer in zip(batch, answers, strict=True):
            one.reason = answer.reason
            if answer.probabilities is not None:
                named = zip(EMOTIONS, answer.probabilities, strict=True)
                one.probabilities = {emotion.value: share for emotion, share in named}
