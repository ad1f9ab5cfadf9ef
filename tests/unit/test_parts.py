"""The parts of an utterance that the model gets after the speech check."""

import pytest

from callmood.schemas.common import Encoding
from callmood.worker.engine.parts import OTHER_SOUND, duration_s, early_answer, part_of
from callmood.worker.records import Prediction, Speech

WHOLE, NOBODY = Speech(0.9, 0, 2_000), Speech(0.1, 0, 0)
SPARSE = Speech(0.9, 0, 2_000, is_sparse=True)


@pytest.mark.parametrize(
    ("speech", "wants_emotion", "expected"),
    [
        (WHOLE, True, None),
        (None, True, None),
        (WHOLE, False, Prediction(None, speech=WHOLE)),
        (None, False, Prediction(None)),
        (NOBODY, True, Prediction(None, speech=NOBODY)),
        (NOBODY, False, Prediction(None, speech=NOBODY)),
        (SPARSE, True, Prediction(None, OTHER_SOUND, speech=SPARSE)),
        (SPARSE, False, Prediction(None, speech=SPARSE)),
    ],
)
def test_the_model_hears_speech_that_it_may_hear(speech, wants_emotion, expected):
    """Nobody speaks, the policy withholds it, or most of it is another sound: the answer is there without the model."""
    assert early_answer(speech, wants_emotion=wants_emotion) == expected


@pytest.mark.parametrize(("encoding", "width"), [(Encoding.PCMU, 1), (Encoding.S16LE, 2)])
def test_the_part_is_cut_at_whole_samples(encoding, width):
    """Its bytes are those of its milliseconds; without a verdict it is the whole."""
    data = bytes(range(256)) * (2 * 8_000 * width // 256)
    sound = encoding, 8_000, data
    assert part_of(sound, None) == sound
    part = part_of(sound, Speech(0.9, 250, 1_001))
    assert part == (encoding, 8_000, data[2_000 * width : 8_008 * width])
    assert duration_s(part) == pytest.approx(0.751)
