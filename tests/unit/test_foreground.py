"""Where the voice in front of a background begins and ends, from the power of each 100 ms."""

import numpy as np
import pytest

from callmood.worker.speech.foreground import CHECK_FRAMES, LEAST_FRAMES, Loudness

FRAME = 160


class Line:
    """A channel: each item is the level of 100 ms in dB, or None where audio was lost; `lost` are single frames."""

    def __init__(self, *levels, first_frame=0, offset=0, lost=()):
        self.levels, self.first_frame, self.read_from = levels, first_frame, []
        self.offset, self.lost = offset, lost
        self.loudness = Loudness(self.read)
        self.loudness.begin(first_frame)

    def read(self, first):
        """All frames from one on, and which are lost."""
        self.read_from.append(first)
        levels = [level for level in self.levels for _ in range(5)][first - self.first_frame :]
        wave = np.resize([1.0, -1.0], FRAME)
        frames = np.array([self.offset + wave * 10 ** ((level or 0) / 20) for level in levels]).round().astype(np.int16)
        lost = [number for number, level in enumerate(levels) if level is None or first + number in self.lost]
        frames[lost] = 0
        return frames, lost

    @property
    def end(self):
        """The frame after the last."""
        return self.first_frame + 5 * len(self.levels)


@pytest.mark.parametrize(("quieter_db", "fade"), [(15, None), (17, 20)])
def test_a_second_of_background_after_the_voice_is_a_fade(quieter_db, fade):
    """From 16 dB on; the voice ends where that second begins."""
    line = Line(*[60] * 4, *[60 - quieter_db] * 10)
    assert line.loudness.fade(line.end) == fade


@pytest.mark.parametrize(
    "levels",
    [[60] * 4 + [40] * 9, [60] + [40] * 9 + [60], [40] * 20, [60] + [40] * 5 + [None] + [40] * 4, [40] * 12 + [60]],
)
def test_less_than_a_second_is_no_fade(levels):
    """A pause, a quiet word or a background alone ends nothing; 100 ms that were lost are not among the second."""
    line = Line(*levels)
    assert line.loudness.fade(line.end) is None


@pytest.mark.parametrize(("quieter_db", "onset"), [(15, None), (17, 50)])
def test_the_voice_begins_after_a_second_of_background(quieter_db, onset):
    """From 16 dB on."""
    line = Line(*[60 - quieter_db] * 10, *[60] * 3)
    assert line.loudness.onset(line.end) == onset


@pytest.mark.parametrize(
    "levels",
    [[40] * 9 + [60] * 3, [60] + [40] * 12 + [60], [40] * 12, [0] * 12, [40] * 5 + [None] + [40] * 4 + [60], []],
)
def test_less_than_a_second_is_no_onset(levels):
    """Nor is a background alone, or digital silence; 100 ms that were lost are not among the second."""
    line = Line(*levels)
    assert line.loudness.onset(line.end) is None


def test_lost_audio_ends_no_background():
    """It is passed over; what was lost right before or behind the background is not part of it."""
    line = Line(60, 60, None, *[40] * 5, None, *[40] * 5)
    assert line.loudness.fade(line.end) == 15
    line = Line(*[40] * 5, None, *[40] * 5, None, 60, 60)
    assert line.loudness.onset(line.end) == 55


def test_the_power_is_that_of_the_frames_that_came():
    """At 2 % loss, most of 100 ms is there; an offset of the line is no power."""
    line = Line(*[60] * 4, *[40] * 10, offset=500, lost=range(20, 70, 5))
    assert line.loudness.fade(line.end) == 20


def test_blocks_lie_on_an_absolute_grid():
    """What an utterance begins in the middle of a block does not count, so that every worker sees the same blocks."""
    line = Line(*[60] * 4, *[40] * 12, first_frame=3)
    assert line.loudness.fade(70) is None
    assert line.loudness.fade(75) == 25
    assert line.read_from == [5]


def test_each_block_is_read_once():
    """Also those that are there before they are decided; and none before an utterance is long enough to fade."""
    line = Line(*[60] * 20)
    for frame in range(5, LEAST_FRAMES, 5):
        assert line.loudness.fade(frame) is None
    assert line.read_from == []
    for frame in range(LEAST_FRAMES, line.end + 1, 5):
        assert line.loudness.fade(frame) is None
    assert line.read_from == [0]


@pytest.mark.parametrize("is_looked_at", [True, False])
@pytest.mark.parametrize("first_frame", [0, 35])
def test_nothing_fades_sooner_than_it_says(is_looked_at, first_frame):
    """At no check before it, if only background follows; once an utterance can fade, each look makes it exact."""
    levels = [60, 40, 40, 60, *[40] * 9, 60, 60]
    for known in range(1, len(levels) + 1):
        line = Line(*levels[:known], *[40] * 20, first_frame=first_frame)
        frame = first_frame + 5 * known
        if is_looked_at:
            line.loudness.fade(frame)
        says = line.loudness.next_fade(frame)
        checks = range(-(-(frame + 1) // CHECK_FRAMES) * CHECK_FRAMES, line.end + 1, CHECK_FRAMES)
        fades = next(check for check in checks if line.loudness.fade(check) is not None)
        is_exact = is_looked_at and frame >= first_frame + LEAST_FRAMES
        assert says == fades if is_exact else frame < says <= fades
        assert fades >= first_frame + LEAST_FRAMES
