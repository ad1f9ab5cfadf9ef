"""Where an utterance is split at a background, and where it is not."""

from operator import attrgetter

import pytest
from telephony import behind, quiet, voice

from callmood.schemas.common import Encoding
from callmood.worker.records import Cut
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.segment import Segmenter


def spans(audio, **settings):
    """Start, end and voiced bounds of each span, in seconds."""
    channel = Segmenter(Encoding.PCMU, 8000, SegmentSettings(**settings))
    found = channel.feed(0, audio) + channel.close(Cut.END)
    assert all(
        span.start_sample <= span.voiced_start_sample < span.voiced_end_sample <= span.end_sample for span in found
    )
    bounds = attrgetter("start_sample", "end_sample", "voiced_start_sample", "voiced_end_sample")
    return [tuple(sample / 8000 for sample in bounds(span)) for span in found]


def test_the_voice_in_front_is_an_utterance_of_its_own():
    """Before and after it is one of the background; nothing is left out between them."""
    background, front, rest = spans(behind(14, [(5.0, 3.0)], 24))
    assert (background[1], front[0], front[1], rest[0]) == (5.0, 5.0, 8.0, 8.0)
    assert (background[2], front[2:], rest[2]) == (pytest.approx(0.2, abs=0.2), (5.0, 8.0), 8.0)


@pytest.mark.parametrize("pauses", [1, 2])
def test_a_long_pause_is_no_background(pauses):
    """With a closing window of seconds, an utterance may hold pauses of more than a second."""
    audio = voice(2) + (quiet(1.8) + voice(2)) * pauses + quiet(4)
    assert len(spans(audio, close_window_ms=3_000)) == 1


def test_the_padding_is_no_background():
    """It can be longer than a second, and is not voiced."""
    ((start, _, first, last),) = spans(quiet(3) + voice(2) + quiet(3), padding_ms=1_500)
    assert (start, first, last) == (pytest.approx(1.5, abs=0.1), pytest.approx(3, abs=0.1), pytest.approx(5, abs=0.2))


@pytest.mark.parametrize(("length_s", "expected"), [(0.7, 2), (1.3, 3)])
def test_a_word_that_is_too_short_for_an_utterance_stays_with_the_background(length_s, expected):
    """Cut off, it would be dropped."""
    assert len(spans(behind(10, [(4.0, length_s)], 26), min_utterance_ms=1_000)) == expected


def test_a_background_that_is_too_short_for_an_utterance_stays_with_the_voice():
    """The least length holds for both."""
    found = spans(behind(9, [(2.5, 4.0)], 24), min_utterance_ms=3_000)
    assert [(start, end) for start, end, *_ in found] == [(pytest.approx(0.1, abs=0.2), 6.5)]


def test_a_voice_that_fades_is_known_within_a_second_and_a_half():
    """A second of background is looked for each half second: its end is decided at the next of them."""
    channel = Segmenter(Encoding.PCMU, 8000, SegmentSettings())
    ended = next(span for span in channel.feed(0, behind(8, [(0.5, 3.0)], 24)) if span.end_sample == 28_000)
    assert ended.decided_sample == 4.5 * 8000


def test_a_voice_that_fades_just_after_a_look_is_known_by_the_one_after_the_next():
    """100 ms later, so the second of background ends right behind the look at 4.5 s."""
    channel = Segmenter(Encoding.PCMU, 8000, SegmentSettings())
    ended = next(span for span in channel.feed(0, behind(8, [(0.6, 3.0)], 24)) if span.end_sample == 28_800)
    assert ended.decided_sample == 5 * 8000
