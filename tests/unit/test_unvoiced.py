"""Frames that no voice makes."""

import numpy as np
import pytest

from callmood.worker.engine.unvoiced import FRAME, unvoiced

RATE_HZ = 8_000


def sound(seconds, *hz, weights=(1, 0.6, 0.4, 0.3, 0.2)):
    """Tones with harmonics; `hz`: a frequency, or one for each sample."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    phases = [2 * np.pi * np.cumsum(np.broadcast_to(one, t.shape)) / RATE_HZ for one in hz]
    return sum(weight * np.sin(k * phase) for phase in phases for k, weight in enumerate(weights, 1))


def heard(samples, noise=0.002):
    """Its share of frames that no voice makes, in the noise of a line."""
    samples = samples / np.abs(samples).max() / 4 + np.random.default_rng(1).normal(0, noise, samples.size)
    found = unvoiced(samples.astype(np.float32))
    assert found.shape == (-(-samples.size // FRAME),)
    return found.mean()


@pytest.mark.parametrize("hz", [50, 110, 120, 180, 300])
def test_hum_is_no_voice(hz):
    """Mains and machines stay at one frequency."""
    assert heard(sound(2, hz, weights=[1, 0.8, 0.9, 0.5, 0.7, 0.4, 0.6, 0.5, 0.3])) > 0.95


def test_notes_are_no_voice():
    """Each note of a tune stays where it is for a while."""
    notes = np.repeat([220, 262, 330, 294, 247, 196, 220, 330], RATE_HZ // 2)
    assert heard(sound(4, notes)) > 0.6


def test_a_pitch_that_glides_can_be_a_voice():
    """As in nearly all speech."""
    t = np.arange(2 * RATE_HZ) / RATE_HZ
    assert heard(sound(2, 140 * (1 + 0.12 * np.sin(2 * np.pi * 2.3 * t)), weights=1 / np.arange(1, 20))) < 0.2


@pytest.mark.parametrize("hz", [110, 200, 350, 500])
def test_a_long_vowel_can_be_a_voice(hz):
    """A scream or a long "no" glides by little: here by a semitone in 0.75 s."""
    t = np.arange(2 * RATE_HZ) / RATE_HZ
    assert heard(sound(2, hz * 1.01 ** (t / 0.128), weights=1 / np.arange(1, 3_700 // hz))) < 0.25


def test_noise_can_be_a_voice():
    """Whispers and consonants are noise: the network judges them."""
    assert heard(np.random.default_rng(2).normal(0, 1, 2 * RATE_HZ)) < 0.05


@pytest.mark.parametrize(("on_s", "off_s"), [(0.05, 0.05), (0.1, 0.1), (0.1, 0.05), (0.2, 0.1)])
@pytest.mark.parametrize("twist_db", [-4, 0, 8])
def test_the_keys_of_a_telephone_are_no_voice(on_s, off_s, twist_db):
    """Dialled as fast as syllables, with one tone louder than the other."""
    keys = [(697, 1209), (770, 1336), (852, 1477), (941, 1633), (697, 1477), (941, 1209)]
    loud = 10 ** (twist_db / 20)
    pressed = [loud * sound(on_s, low, weights=[1]) + sound(on_s, high, weights=[1]) for low, high in keys]
    dialled = np.concatenate([part for one in pressed for part in (one, np.zeros(round(off_s * RATE_HZ)))])
    assert heard(dialled) > 0.7


@pytest.mark.parametrize("samples", [1, 255, 256, 1_000, 2_100, 4_000])
def test_a_short_or_silent_utterance_has_all_its_frames(samples):
    """Down to one sample, and without a sound."""
    assert not unvoiced(np.zeros(samples, np.float32)).any()
    assert unvoiced(np.ones(samples, np.float32)).shape == (-(-samples // FRAME),)
