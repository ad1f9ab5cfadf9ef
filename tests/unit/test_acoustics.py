"""The measured sound of an utterance."""

import time

import numpy as np
import pytest

from callmood.worker.call.acoustics import measure
from callmood.worker.g711 import PCMU_TO_S16, encode_pcmu
from callmood.worker.records import Acoustics


def _tone(hz, seconds=2.0, amplitude=10_000.0, rate_hz=8000):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def _s16(samples):
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16)


def _noise(seconds, rms, rate_hz=8000, seed=0):
    return np.random.default_rng(seed).normal(0, rms, round(seconds * rate_hz))


def _low_pass(samples, hz, rate_hz):
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(samples.size, 1 / rate_hz) > hz] = 0
    return np.fft.irfft(spectrum, samples.size)


@pytest.mark.parametrize(("amplitude", "dbfs"), [(32767, -3.0), (3276.7, -23.0), (327.67, -43.0)])
def test_level_is_rms_below_full_scale(amplitude, dbfs):
    """A full-scale sine reads -3 dBFS, and each tenth of it 20 dB less."""
    assert measure(_s16(_tone(400, amplitude=amplitude)), 8000).rms_dbfs == pytest.approx(dbfs, abs=0.1)


@pytest.mark.parametrize("snr_db", [0, 10, 20, 30])
def test_noise_is_found_in_the_pauses(snr_db):
    """With pauses in the utterance the estimate is within 2 dB of the true ratio."""
    speech = np.concatenate([_noise(0.3, 0), _noise(1.5, 3000, seed=1), _noise(0.2, 0), _noise(1, 3000, seed=2)])
    noisy = speech + _noise(3, 3000 / 10 ** (snr_db / 20))
    assert measure(_s16(noisy), 8000).snr_db == pytest.approx(snr_db, abs=2)


def test_known_noise_replaces_the_estimate():
    """Where the channel's noise is known, speech without a pause has its true ratio."""
    speech = _s16(_noise(2, 3276.8))
    assert measure(speech, 8000).snr_db < 3
    assert measure(speech, 8000, noise_dbfs=-45.0).snr_db == pytest.approx(25, abs=1)


def test_the_ratio_is_bounded():
    """Digital silence in the pauses does not give an infinite ratio."""
    assert measure(_s16(np.concatenate([_noise(1, 0), _noise(2, 3000)])), 8000).snr_db == 60.0


def test_clipping_is_a_share_of_the_samples():
    """Samples at the end of the scale count, also after G.711, and a loud but whole signal has none."""
    overdriven = _s16(_tone(397, amplitude=65_536))
    assert measure(overdriven, 8000).clipping == pytest.approx(2 / 3, abs=0.03)
    through_pcmu = PCMU_TO_S16[np.frombuffer(encode_pcmu(overdriven), np.uint8)]
    assert measure(through_pcmu, 8000).clipping == pytest.approx(2 / 3, abs=0.05)
    assert measure(_s16(_tone(400, amplitude=30_000)), 8000).clipping == 0.0


def _spoken(seed, peak):
    """Like speech: bursts whose samples are distributed as those of speech, with its low pitch."""
    bursts = _noise(3, 1, seed=seed) * np.exp(_noise(3, 0.8, seed=seed + 1).repeat(400)[:24_000])
    voiced = np.convolve(bursts, np.exp(-np.arange(60) / 12), "same")
    return peak * voiced / np.abs(voiced).max()


@pytest.mark.parametrize("attenuation_db", [3, 6, 12, 20])
@pytest.mark.parametrize("codec", ["s16le", "pcmu"])
def test_clipping_is_found_after_attenuation(attenuation_db, codec):
    """What a gateway clipped and then made quieter is found within a tenth of its share."""
    loud = np.clip(_spoken(1, 250_000), -32_767, 32_767)
    true = float(np.mean(np.abs(loud) == 32_767))
    pcm = _s16(loud / 10 ** (attenuation_db / 20))
    pcm = PCMU_TO_S16[np.frombuffer(encode_pcmu(pcm), np.uint8)] if codec == "pcmu" else pcm
    assert true > 0.02
    assert measure(pcm, 8000).clipping == pytest.approx(true, rel=0.4)


@pytest.mark.parametrize("amplitude", [700, 3_000, 10_000, 20_000, 31_000])
def test_whole_audio_is_not_clipped(amplitude):
    """Speech-like sound and tones have no flat tops, in any codec's steps and at any level."""
    sounds = [_spoken(seed, amplitude) for seed in range(8)] + [_tone(hz, 2, amplitude) for hz in (60, 200, 425, 1004)]
    for sound in sounds:
        pcm = _s16(sound)
        through_pcmu = PCMU_TO_S16[np.frombuffer(encode_pcmu(pcm), np.uint8)]
        assert measure(pcm, 8000).clipping < 0.001
        assert measure(through_pcmu, 8000).clipping < 0.001


@pytest.mark.parametrize("offset", [0.02, 0.1, 0.3])
def test_an_offset_is_no_sound(offset):
    """A DC offset changes neither the level nor the signal-to-noise ratio."""
    sound = np.concatenate([_noise(1, 30), _spoken(3, 9_000), _noise(1, 30)])
    plain, shifted = (measure(_s16(sound + 32_768 * level), 8000) for level in (0.0, offset))
    assert shifted.rms_dbfs == pytest.approx(plain.rms_dbfs, abs=0.1)
    assert shifted.snr_db == pytest.approx(plain.snr_db, abs=0.5)


@pytest.mark.parametrize(("cutoff_hz", "rate_hz"), [(3400, 8000), (3400, 16000), (3900, 16000), (7000, 16000)])
def test_bandwidth_is_the_highest_frequency_heard(cutoff_hz, rate_hz):
    """Telephone audio reads its 3.4 kHz, also at a higher rate."""
    pcm = _s16(_low_pass(_noise(3, 3000, rate_hz), cutoff_hz, rate_hz))
    assert cutoff_hz - 125 <= measure(pcm, rate_hz).bandwidth_hz <= cutoff_hz + 250


def test_codec_noise_is_no_bandwidth():
    """The quantisation noise of mu-law in an empty band is not heard as bandwidth."""
    pcm = _s16(_tone(200, seconds=3) + _low_pass(_noise(3, 2000), 3000, 8000))
    through_pcmu = PCMU_TO_S16[np.frombuffer(encode_pcmu(pcm), np.uint8)]
    assert measure(through_pcmu, 8000).bandwidth_hz <= 3250


def test_nothing_and_silence_have_figures():
    """An empty or silent utterance is measured without an error."""
    assert measure(np.zeros(0, np.int16), 8000) == Acoustics(-96.0, 0.0, 0.0, 0)
    assert measure(np.zeros(8000, np.int16), 8000) == Acoustics(-96.0, 0.0, 0.0, 0)


@pytest.mark.parametrize("samples", [1, 17, 159, 161, 256])
def test_the_shortest_utterances_have_figures(samples):
    """An utterance shorter than a frame is measured as one."""
    figures = measure((16384 * (-1.0) ** np.arange(samples)).astype(np.int16), 8000)
    assert figures.rms_dbfs == (-6.0 if samples > 1 else -96.0)
    assert figures.snr_db == (-20.0 if samples > 1 else 0.0)


def test_figures_are_plain_and_repeatable():
    """The same samples give the same plain Python numbers."""
    pcm = _s16(_noise(2, 30_000))
    figures = measure(pcm, 8000)
    assert figures == measure(pcm, 8000)
    values = (figures.rms_dbfs, figures.snr_db, figures.clipping, figures.bandwidth_hz)
    assert [type(value) for value in values] == [float, float, float, int]


def test_measuring_is_fast():
    """Five seconds take about a millisecond; the bound leaves room for a busy machine."""
    pcm = _s16(_noise(5, 3000, 16000))
    measure(pcm, 16000)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        measure(pcm, 16000)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


@pytest.mark.parametrize("sign", [1, -1])
def test_clipping_at_either_end_is_found(sign):
    """A microphone with an offset clips at one end only."""
    samples = np.clip(sign * (_tone(300, amplitude=30_000) - 20_000), -32_768, 32_767)
    assert measure(_s16(samples), 8000).clipping > 0.2
