"""A segmenter with missing audio, and after a restart with other settings."""

import numpy as np
import pytest

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcmu
from callmood.worker.records import Cut
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech import vad
from callmood.worker.speech.segment import Segmenter

_RULES = SegmentSettings(padding_ms=100)


def _audio(*parts):
    """PCMU of (seconds, loudness) parts: a vowel-like sound over faint noise."""
    loudness = np.concatenate([np.full(round(seconds * 8000), level, np.float64) for seconds, level in parts])
    time = np.arange(loudness.size) / 8000
    tone = sum(np.sin(2 * np.pi * hz * time) / k for k, hz in enumerate((140, 280, 420, 560, 700, 1400, 2100), 1))
    noise = np.random.default_rng(0).normal(0, 30, time.size)
    return encode_pcmu(np.round(tone * loudness * 3000 + noise).astype(np.int16))


def _channel(rules=_RULES):
    return Segmenter(Encoding.PCMU, 8000, rules)


def _restored(channel, rules=_RULES):
    return Segmenter.restore(Encoding.PCMU, 8000, rules, channel.snapshot())


def test_missing_audio_must_be_declared():
    """Audio that does not follow what is known is an error, not a silent shift of time."""
    channel = _channel()
    channel.feed(0, bytes(800))
    with pytest.raises(ValueError, match="missing"):
        channel.feed(801, bytes(800))


def test_a_concealed_gap_stays_inside_the_utterance():
    """A short gap is bridged and counted."""
    channel = _channel()
    channel.feed(0, _audio((1, 0), (1, 1)))
    channel.conceal(1600)
    (span,) = channel.feed(17600, _audio((1, 1), (1, 0)))
    assert span.missing_samples == 1600
    assert span.start_sample < 16000
    assert span.end_sample > 17600


def test_a_concealed_gap_elsewhere_is_not_counted():
    """Concealment outside of the span does not count in it."""
    channel = _channel()
    channel.feed(0, _audio((1, 0)))
    channel.conceal(1600)
    (span,) = channel.feed(9600, _audio((1, 0), (1, 1), (1, 0)))
    assert span.missing_samples == 0


def test_a_close_ends_the_utterance_where_it_stands():
    """A pause, gap or end closes the open utterance at the last sample, decided there."""
    channel = _channel()
    channel.feed(0, _audio((1, 0), (1.01, 1)))
    (span,) = channel.close(Cut.PAUSE)
    assert (span.end_sample, span.decided_sample, span.cut) == (16080, 16080, Cut.PAUSE)
    assert channel.close(Cut.PAUSE) == []


def test_a_close_leaves_out_trailing_silence():
    """The silence that was waiting to close the utterance is no part of it."""
    channel = _channel()
    channel.feed(0, _audio((1, 0), (1, 1), (0.4, 0)))
    (span,) = channel.close(Cut.GAP)
    assert 2.08 <= span.end_sample / 8000 <= 2.22
    assert span.decided_sample == 19200


def test_audio_before_a_skip_never_returns():
    """After a skip an utterance begins at the new audio, even if speech went on, and even inside a frame."""
    channel = _channel()
    channel.feed(0, _audio((1, 0), (1, 1)))
    channel.close(Cut.GAP)
    channel.skip_to(50_001)
    assert channel.next_sample == channel.keep_from == 50_001
    (span,) = channel.feed(50_001, _audio((1, 1), (1, 0)))
    assert span.start_sample == 50_001


def test_a_skip_starts_a_fresh_detector():
    """What follows a skip is decided as in a new stream."""
    audio, used = _audio((0.5, 0), (1, 1), (1, 0)), _channel()
    used.feed(0, _audio((30, 0.02)))
    used.close(Cut.GAP)
    used.skip_to(320_000)
    (after,) = used.feed(320_000, audio)
    (alone,) = _channel().feed(0, audio)
    assert (after.start_sample - 320_000, after.audio) == (alone.start_sample, alone.audio)
    fresh = _channel()
    fresh.feed(0, audio)
    assert used.snapshot().vad == fresh.snapshot().vad


def test_voiced_time_stays_in_place_across_a_skip():
    """Votes keep their place on the time line; what was skipped has none."""
    channel = _channel()
    channel.feed(0, _audio((1, 0), (1, 1)))
    channel.close(Cut.GAP)
    channel.skip_to(24_000)
    channel.feed(24_000, _audio((1, 1)))
    assert channel.voiced_ms(8000, 16000) == 1000
    assert channel.voiced_ms(16000, 24000) == 0
    assert channel.voiced_ms(24000, 32000) >= 980


def test_a_skip_goes_forward_and_between_utterances_only():
    """An open utterance or a step back is a mistake of the caller."""
    channel = _channel()
    channel.feed(0, _audio((1, 0), (1, 1)))
    with pytest.raises(ValueError, match="close first"):
        channel.skip_to(20_000)
    channel.close(Cut.GAP)
    with pytest.raises(ValueError, match="forward"):
        channel.skip_to(15_000)


def test_other_rules_resume_at_the_frontier():
    """A successor with other rules keeps the open utterance, starts a fresh detector, and says so."""
    audio, channel = _audio((1, 0), (1, 1), (2, 0)), _channel()
    channel.feed(0, audio[:12_000])
    successor = _restored(channel, SegmentSettings(padding_ms=300, max_utterance_s=10.0))
    assert not successor.restored_exactly
    assert (successor.next_sample, successor.keep_from) == (channel.next_sample, channel.keep_from)
    (span,) = successor.feed(channel.keep_from, audio[channel.keep_from :])
    (same,) = channel.feed(12_000, audio[12_000:])
    assert span.start_sample == same.start_sample


def test_wider_padding_cannot_reach_audio_that_was_not_kept():
    """A successor whose rules look further back than its predecessor's begins where the kept audio does."""
    audio, channel = _audio((1, 0), (1, 1), (2, 0)), _channel()
    channel.feed(0, audio[:8000])
    successor = _restored(channel, SegmentSettings(padding_ms=2000))
    (span,) = successor.feed(channel.keep_from, audio[channel.keep_from :])
    assert span.start_sample == channel.keep_from
    assert span.audio == audio[span.start_sample : span.end_sample]


def test_a_library_without_dumps_still_resumes(monkeypatch):
    """With an unknown release of the detector the frontier is kept and the detector is fresh."""
    monkeypatch.setattr(vad.webrtcvad, "__version__", "9")
    audio, channel = _audio((1, 0), (1, 1), (2, 0)), _channel()
    channel.feed(0, audio[:12_000])
    successor = _restored(channel)
    assert not successor.restored_exactly
    assert [span.cut for span in successor.feed(0, audio)] == [Cut.SILENCE]
