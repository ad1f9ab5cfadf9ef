"""Call audio to the encoder's input."""

import numpy as np
import pytest
import soxr
import torch

from callmood.schemas.common import Encoding
from callmood.worker import g711
from callmood.worker.model.audio import prepare, resample, resampled

RATE_HZ = 16_000


def tone(frequency_hz, rate_hz, seconds=0.5):
    return np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * seconds)) / rate_hz).astype(np.float32)


def level_db(samples, frequency_hz):
    """Level of the tone at a frequency in the middle of 16 kHz samples, relative to full scale."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    window = np.hanning(len(middle))
    phase = np.exp(-2j * np.pi * frequency_hz * np.arange(len(middle)) / RATE_HZ)
    return 20 * np.log10(2 * abs((middle * window * phase).sum()) / window.sum() + 1e-12)


def resampled_tone(frequency_hz, rate_hz):
    return resample(torch.from_numpy(tone(frequency_hz, rate_hz))[None], rate_hz)[0].numpy()


def s16(samples):
    return (samples * 32_767).astype("<i2").tobytes()


@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA, Encoding.S16LE, Encoding.S16BE])
def test_samples_are_decoded_exactly(encoding):
    """At 16 kHz every sample is its 16-bit value over 32768."""
    data = bytes(range(256))
    waveforms, lengths = prepare([(encoding, RATE_HZ, data)])
    expected = g711.to_s16(encoding, data).astype(np.float32) / 32_768
    np.testing.assert_array_equal(waveforms[0].numpy(), expected)
    assert lengths.tolist() == [len(expected)]


@pytest.mark.parametrize(("rate_hz", "samples", "expected"), [(8_000, 7, 14), (16_000, 7, 7), (48_000, 7, 3)])
def test_lengths_follow_the_rate(rate_hz, samples, expected):
    """The resampled length covers the utterance to its end."""
    assert resampled(samples, rate_hz) == expected
    assert resample(torch.zeros(2, samples), rate_hz).shape == (2, expected)


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_speech_frequencies_pass_unchanged(rate_hz):
    """In the telephone band levels stay within 0.01 dB, and there is no delay."""
    for frequency_hz in (100, 300, 1_000, 3_400):
        found = resampled_tone(frequency_hz, rate_hz)
        expected = tone(frequency_hz, RATE_HZ)
        assert level_db(found, frequency_hz) == pytest.approx(0, abs=0.01)
        middle = slice(len(expected) // 4, -len(expected) // 4)
        assert np.abs(found[middle] - expected[middle]).max() < 2e-3


def test_upsampling_leaves_the_upper_band_empty():
    """The mirror image above 4 kHz of a tone in the telephone band is below -90 dB."""
    for frequency_hz in (1_000, 3_000, 3_500):
        assert level_db(resampled_tone(frequency_hz, 8_000), 8_000 - frequency_hz) < -90


def test_downsampling_does_not_alias():
    """What 16 kHz cannot hold is gone, not folded back."""
    for frequency_hz in (8_100, 9_000, 12_000):
        assert level_db(resampled_tone(frequency_hz, 48_000), abs(RATE_HZ - frequency_hz)) < -90


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_the_resampler_agrees_with_soxr(rate_hz):
    """Band-limited noise differs from soxr's best quality by less than -60 dB."""
    rng = np.random.default_rng(0)
    spectrum = np.zeros(rate_hz // 2 + 1, dtype=complex)
    spectrum[100:3_500] = rng.normal(size=3_400) + 1j * rng.normal(size=3_400)
    noise = np.fft.irfft(spectrum).astype(np.float32)
    found = resample(torch.from_numpy(noise)[None], rate_hz)[0].numpy()
    expected = soxr.resample(noise, rate_hz, RATE_HZ, quality="VHQ")
    middle = slice(RATE_HZ // 4, -RATE_HZ // 4)
    error = found[middle] - expected[middle]
    assert 10 * np.log10(np.square(error).mean() / np.square(expected[middle]).mean()) < -60


def test_a_batch_may_mix_everything():
    """Encodings, rates and lengths in one batch give what each gives alone, with zeros beyond the end."""
    rng = np.random.default_rng(1)
    speech = (0.2 * rng.normal(size=4_000)).clip(-1, 1).astype(np.float32)
    values = np.frombuffer(s16(speech), "<i2")
    sounds = [
        (Encoding.PCMU, 8_000, g711.encode_pcmu(values)),
        (Encoding.S16LE, 16_000, s16(speech[:1_111])),
        (Encoding.PCMA, 8_000, g711.encode_pcma(values[:500])),
        (Encoding.PCMA, 8_000, g711.encode_pcma(values[:3_000])),
        (Encoding.S16LE, 48_000, s16(speech)),
    ]
    waveforms, lengths = prepare(sounds)
    assert lengths.tolist() == [8_000, 1_111, 1_000, 6_000, 1_334]
    for row, length, sound in zip(waveforms, lengths, sounds, strict=True):
        alone, _ = prepare([sound])
        torch.testing.assert_close(row[:length], alone[0], atol=1e-6, rtol=0)
        assert not row[length:].any()


def test_half_a_sample_is_an_error():
    """Bytes that are no whole number of 16-bit samples are refused."""
    with pytest.raises(ValueError, match="multiple"):
        prepare([(Encoding.S16LE, 8_000, b"\0\0\0")])
