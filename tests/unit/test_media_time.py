"""Where a stream stands on its media time line and on that of its call."""

import pytest

from callmood.worker.speech.media_time import MediaTime


def begun(rate_hz=8000, media_ms=0.0, offset_ms=0):
    time = MediaTime(offset_ms)
    time.begin(rate_hz, media_ms)
    return time


def test_before_the_first_audio_time_counts_in_milliseconds():
    """A gap before the first audio moves the position, though there is no sample yet."""
    time = MediaTime(100)
    assert time.skip(1_500) == 0
    assert time.call_position_ms == 1_600
    time.begin(8000, None)
    assert time.sample == 12_000
    assert time.call_position_ms == 1_600


def test_the_first_audio_says_where_the_stream_was_joined():
    """Joined late, the position is the media time of the first audio."""
    assert begun(media_ms=2_000.5).sample == 16_004


def test_the_first_audio_does_not_turn_time_back():
    """Media time before what has passed already is not followed: the order of the records wins."""
    time = MediaTime(0)
    time.skip(5_000)
    time.begin(8000, 0.0)
    assert time.sample == 40_000


@pytest.mark.parametrize(("media_ms", "ahead_ms"), [(1_020.0, 0.0), (1_020.1, 20.1), (990.0, 0.0), (None, 0.0)])
def test_only_more_than_rounding_is_ahead(media_ms, ahead_ms):
    """Up to 20 ms is rounding, behind is not followed, and no media time means right after the record before."""
    time = begun()
    time.sample = 8_000
    assert time.ahead_ms(media_ms) == pytest.approx(ahead_ms)


def test_skipping_moves_by_whole_samples():
    """The samples skipped are returned and added."""
    time = begun(rate_hz=16_000)
    assert time.skip(12.53) == 200
    assert time.sample == 200
    assert time.ms(200) == 12.5


def test_the_longest_leap_is_bounded():
    """A garbled seq may say that ages are missing; the position must stay a number that can be stored."""
    time = begun(rate_hz=48_000)
    assert time.skip(1e20) == 48 * 10**9


def test_samples_lie_on_the_time_line_of_the_call():
    """A stream that began later has its offset added."""
    time = begun(offset_ms=30_000)
    assert time.call_ms(8_000) == 31_000
    assert time.call_position_ms == 30_000


def test_a_saved_position_is_restored_as_of_an_earlier_sample():
    """The successor stands where its first record to hear again begins."""
    time = begun(media_ms=500, offset_ms=7)
    restored = MediaTime.load(time.save(1_000))
    assert (restored.sample, restored.rate_hz, restored.offset_ms) == (1_000, 8000, 7)
    early = MediaTime(0)
    early.skip(250)
    assert MediaTime.load(early.save(0)).call_position_ms == 250
