"""How speech of one channel becomes utterances."""

from itertools import pairwise, product

import numpy as np
import pytest

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcma, encode_pcmu
from callmood.worker.records import Cut
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.segment import Segmenter
from callmood.worker.speech.vad import FRAME_MS, Vote

RATE_HZ = 8000
_RULES = SegmentSettings(padding_ms=100)


def _pcm(*parts, rate_hz=RATE_HZ):
    """int16 samples of (seconds, loudness) parts: a vowel-like sound over faint noise."""
    loudness = np.concatenate([np.full(round(seconds * rate_hz), level, np.float64) for seconds, level in parts])
    time = np.arange(loudness.size) / rate_hz
    tone = sum(np.sin(2 * np.pi * hz * time) / k for k, hz in enumerate((140, 280, 420, 560, 700, 1400, 2100), 1))
    noise = np.random.default_rng(0).normal(0, 30, time.size)
    return np.round(tone * loudness * 3000 + noise).astype(np.int16)


def _segment(pcm, rules=_RULES):
    channel = Segmenter(Encoding.S16LE, RATE_HZ, rules)
    return channel.feed(0, pcm.tobytes()) + channel.close(Cut.END)


def _seconds(span):
    return span.start_sample / RATE_HZ, span.end_sample / RATE_HZ


def test_an_utterance_is_its_speech_with_padding():
    """It begins at most the padding before the speech and ends shortly after it, not where the close was decided."""
    (span,) = _segment(_pcm((1, 0), (1, 1), (2, 0)))
    start, end = _seconds(span)
    assert 0.88 <= start <= 0.94
    assert 2.08 <= end <= 2.22  # the detector itself lingers for up to 0.1 s
    assert span.cut is Cut.SILENCE
    assert 0.2 <= span.decided_sample / RATE_HZ - end <= 0.5


def test_padding_is_as_asked():
    """More padding moves both ends by as much."""
    (narrow,) = _segment(_pcm((1, 0), (1, 1), (2, 0)), SegmentSettings(padding_ms=0))
    (wide,) = _segment(_pcm((1, 0), (1, 1), (2, 0)), SegmentSettings(padding_ms=200))
    assert narrow.start_sample - wide.start_sample == wide.end_sample - narrow.end_sample == 1600


@pytest.mark.parametrize(("open_ms", "voiced_frames"), [(200, 6), (100, 3), (20, 1)])
def test_what_fits_into_the_room_closes_nothing(open_ms, voiced_frames):
    """The shortest way to a close is just enough voice to open, then silence: it is over one frame after the room."""
    channel = Segmenter(Encoding.S16LE, RATE_HZ, SegmentSettings(open_window_ms=open_ms))
    channel.keeps_levels = False
    frames, is_open = (channel.room + 1) // channel.frame_samples - 1, []
    for frame in range(frames + 1):
        channel._count([Vote.VOICED if frame < voiced_frames else Vote.SILENT])
        is_open.append(channel._start is not None)
    silent_frames = voiced_frames - 1
    assert is_open == [False] * silent_frames + [True] * (frames - silent_frames) + [False]


@pytest.mark.parametrize("least_ms", [20, 100, 140])
@pytest.mark.parametrize(("open_ratio", "close_ratio"), [(0.6, 0.6), (0.3, 0.9), (1.0, 0.4)])
def test_whatever_fits_into_the_room_closes_nothing(open_ratio, close_ratio, least_ms):
    """All votes that can be: a moment of speech in the middle of silence, too, after which it closes at once."""
    rules = SegmentSettings(
        open_window_ms=60,
        open_ratio=open_ratio,
        close_window_ms=100,
        close_ratio=close_ratio,
        min_utterance_ms=least_ms,
    )
    for before in product((Vote.SILENT, Vote.VOICED), repeat=3):
        frames = _after(before, rules).room // (RATE_HZ * FRAME_MS // 1000)
        for votes in product((Vote.SILENT, Vote.VOICED), repeat=frames):
            assert _after(before, rules)._count(votes) == [], (before, votes)


def _after(votes, rules):
    """A channel that has heard frames of which the detector says this."""
    channel = Segmenter(Encoding.S16LE, RATE_HZ, rules)
    channel.keeps_levels = False
    channel._recent.add(0, bytes(2 * len(votes) * channel.frame_samples))
    channel._count(votes)
    return channel


def test_padding_never_overlaps_the_utterance_before():
    """Where padding would reach into the previous utterance, it begins at that one's end."""
    rules = SegmentSettings(padding_ms=400, close_window_ms=200)
    first, second = _segment(_pcm((1, 0), (1, 1), (0.5, 0), (1, 1), (1, 0)), rules)
    assert first.end_sample == second.start_sample


def test_a_short_pause_does_not_split():
    """A pause below the closing window stays inside the utterance."""
    assert len(_segment(_pcm((1, 0), (1, 1), (0.3, 0), (1, 1), (1, 0)))) == 1


def test_a_click_is_no_utterance():
    """A sound below the minimum length is dropped."""
    rules = SegmentSettings(min_utterance_ms=400)
    assert len(_segment(_pcm((1, 0), (0.2, 1), (2, 0), (1, 1), (1, 0)), rules)) == 1
    assert len(_segment(_pcm((1, 0), (0.2, 1), (2, 0), (1, 1), (1, 0)))) == 2


def test_long_speech_is_split_at_its_quietest_point():
    """Speech over the limit is split in the quiet moment of the last seconds and goes on without a hole."""
    rules = SegmentSettings(max_utterance_s=5.0, split_search_s=2.0)
    first, second = _segment(_pcm((1, 0), (1.5, 1), (0.2, 0.05), (1.8, 1), (0.14, 0.05), (3, 1), (1, 0)), rules)
    assert first.cut is Cut.FORCED
    assert first.end_sample == second.start_sample
    assert 4.5 <= first.end_sample / RATE_HZ <= 4.64  # the later quiet moment: the earlier one lies before the search


def test_loud_speech_without_pause_stays_within_the_limit():
    """Endless sound is cut into utterances of at most the limit, each after the other."""
    spans = _segment(_pcm((0.5, 0), (40, 1), (1, 0)))
    lengths = [span.end_sample - span.start_sample for span in spans]
    assert max(lengths) <= 15 * RATE_HZ
    assert all(a.end_sample == b.start_sample for a, b in pairwise(spans))
    assert spans[-1].end_sample - spans[0].start_sample >= 40 * RATE_HZ


def test_silence_has_no_utterances():
    """Noise and digital silence open nothing."""
    assert _segment(_pcm((20, 0))) == []
    assert _segment(np.zeros(20 * RATE_HZ, np.int16)) == []


@pytest.mark.parametrize(("encoding", "encode"), [(Encoding.PCMU, encode_pcmu), (Encoding.PCMA, encode_pcma)])
def test_g711_is_segmented_as_it_sounds(encoding, encode):
    """G.711 gives the utterances of its samples, and the span keeps the native bytes."""
    audio = encode(_pcm((1, 0), (1, 1), (2, 0)))
    (span,) = Segmenter(encoding, RATE_HZ, _RULES).feed(0, audio)
    start, end = _seconds(span)
    assert 0.88 <= start <= 0.94
    assert 2.08 <= end <= 2.22
    assert span.audio == audio[span.start_sample : span.end_sample]


@pytest.mark.parametrize("rate_hz", [16000, 48000])
def test_other_rates_give_the_same_times(rate_hz):
    """Wideband audio is segmented as telephone audio is, in its own samples."""
    audio = _pcm((1, 0), (1, 1), (2, 0), rate_hz=rate_hz).tobytes()
    (span,) = Segmenter(Encoding.S16LE, rate_hz, _RULES).feed(0, audio)
    assert 0.88 <= span.start_sample / rate_hz <= 0.94
    assert 2.08 <= span.end_sample / rate_hz <= 2.22
    assert span.audio == audio[2 * span.start_sample : 2 * span.end_sample]


def test_voiced_time_is_that_of_the_frames():
    """Voiced time counts 20 ms frames, as far back as an utterance can reach, and nothing undecided."""
    channel = Segmenter(Encoding.S16LE, RATE_HZ, _RULES)
    channel.feed(0, _pcm((1, 0), (1, 1), (3, 0)).tobytes())
    assert channel.voiced_ms(4000, 8000) == 0  # a fresh detector may misjudge its first frames
    assert channel.voiced_ms(8000, 16000) == 1000
    assert channel.voiced_ms(4000, 12000) + channel.voiced_ms(12000, 40000) == channel.voiced_ms(4000, 40000)
    assert channel.voiced_ms(0, 10**9) == channel.voiced_ms(0, 40000)


def test_an_hour_of_silence_or_music_keeps_memory_small():
    """Neither silence nor endless sound grows the buffer, and the frontier moves on."""
    for part, limit_s in (((60, 0), 1), ((60, 1), 16)):
        channel, minute = Segmenter(Encoding.PCMU, RATE_HZ, _RULES), encode_pcmu(_pcm(part))
        for number in range(60):
            channel.feed(number * len(minute), minute)
        assert channel.next_sample - channel.keep_from <= limit_s * RATE_HZ
        assert channel.next_sample == 60 * len(minute)
        assert len(channel._recent.native(channel._recent.base, channel._recent.known)) <= limit_s * RATE_HZ
        assert channel._history.bit_length() <= 25 * 50


def test_a_split_lies_in_the_middle_of_the_quiet_moment():
    """Not at its beginning, where the word still sounds."""
    rules = SegmentSettings(max_utterance_s=5.0, split_search_s=2.0)
    first, _ = _segment(_pcm((1, 0), (3.5, 1), (0.1, 0.02), (3, 1), (1, 0)), rules)
    assert 4.53 <= first.end_sample / RATE_HZ <= 4.57


def test_long_speech_is_split_as_soon_as_it_is_too_long():
    """The split is decided within the limit, for nothing behind it may be in the utterance."""
    rules = SegmentSettings(max_utterance_s=5.0)
    first, *_ = _segment(_pcm((1, 0), (8, 1), (1, 0)), rules)
    assert first.cut is Cut.FORCED
    assert first.decided_sample - first.start_sample <= 5 * RATE_HZ
