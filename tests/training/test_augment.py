"""The telephone chain: what it does to a spectrum, how often it loses packets, and that it repeats itself."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from callmood.schemas.common import Encoding
from callmood.training.loop import augment
from callmood.training.loop.data import Clip
from callmood.training.options import AugmentConfig
from callmood.training.synthetic import around, sounds
from callmood.worker import g711

QUIET = AugmentConfig(probability=1, noise=0, mu_law=0, a_law=0, loss=0)
PRESENCE = AugmentConfig(probability=1)


def speechlike(seconds: float, rate_hz: int, seed: int = 1) -> np.ndarray:
    """Noise over the whole band, at -20 dBFS."""
    return (np.random.default_rng(seed).normal(size=round(seconds * rate_hz)) * 3276).astype(np.int16)


def band_db(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Power in a band, in dB."""
    power = np.abs(np.fft.rfft(samples / 32768)) ** 2
    frequency = np.fft.rfftfreq(samples.size, 1 / augment.RATE_HZ)
    return float(10 * np.log10(power[(frequency >= low_hz) & (frequency < high_hz)].mean() + 1e-20))


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
@pytest.mark.parametrize("seed", range(5))
def test_what_comes_out_is_a_telephone_band_at_8_khz(rate_hz: int, seed: int):
    """Same duration, 8 kHz, and below 100 Hz and above 3.9 kHz at least 30 dB less than between."""
    heard = augment.telephone_line(speechlike(2.0, rate_hz), rate_hz, QUIET, np.random.default_rng(seed))
    assert heard.dtype == np.int16
    assert heard.size == 16_000
    middle = band_db(heard, 500, 3000)
    assert band_db(heard, 10, 90) < middle - 30
    assert band_db(heard, 3950, 4000) < middle - 30


@pytest.mark.parametrize(("law", "encoding"), [("mu_law", Encoding.PCMU), ("a_law", Encoding.PCMA)])
def test_a_law_leaves_only_its_own_256_values(law: str, encoding: Encoding):
    """After mu-law or A-law every sample is one of the values that its 256 codes have in G.711."""
    config = dataclasses.replace(QUIET, **{law: 1.0})
    heard = augment.telephone_line(speechlike(1.0, 16_000), 16_000, config, np.random.default_rng(1))
    assert np.isin(heard, g711.to_s16(encoding, bytes(range(256)))).all()
    assert len(np.unique(heard)) > 50


def test_a_sound_of_the_line_is_beside_or_behind_the_speech():
    """It makes the clip at most 1.2 s longer, or keeps its length and is at least 12 dB below the speech."""
    quiet = dataclasses.replace(QUIET, noise=1, noise_snr_db=(90, 90))
    speech, lengths = speechlike(2.0, 16_000), []
    for seed in range(24):
        heard = augment.telephone_line(
            speech, 16_000, dataclasses.replace(quiet, sounds=1.0), np.random.default_rng(seed)
        )
        lengths.append(heard.size)
    behind = [length for length in lengths if length == 16_000]
    beside = [length for length in lengths if length != 16_000]
    assert len(behind) >= 6
    assert len(beside) >= 6
    assert all(16_000 + 1_600 <= length <= 16_000 + 9_600 for length in beside)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_sound_is_as_loud_as_drawn(held_out, monkeypatch: pytest.MonkeyPatch):
    """Relative to the speech: from -12 to 6 dB beside it, from -30 to -12 dB behind it; never a pause of the sound."""
    monkeypatch.setattr(around, "_BREAK_S", (0.0, 0.0))
    speech = speechlike(2.0, 8000) / 32768
    levels: dict[bool, list[float]] = {True: [], False: []}
    first = []
    for seed in range(200):
        heard = around.add(speech, np.random.default_rng(seed), held_out=held_out)
        is_beside, is_first = heard.size > speech.size, np.array_equal(heard[-speech.size :], speech)
        beside = heard[: -speech.size] if is_first else heard[speech.size :]
        sound = beside if is_beside else heard - speech
        first += [is_first] if is_beside else []
        levels[is_beside].append(10 * np.log10(np.square(sound).mean() / np.square(speech).mean()))
    assert min(map(len, levels.values())) > 50
    assert 0.3 < np.mean(first) < 0.7  # of those beside the speech, before it
    for is_beside, (low, high) in ((True, (-12, 6)), (False, (-30, -12))):
        assert low <= min(levels[is_beside]) < low + 3
        assert high - 3 < max(levels[is_beside]) <= high


def test_sounds_of_a_test_are_not_those_of_training():
    """More than 90 each, and of each kind half."""
    own, held_out = ({sound.tobytes() for sound in around.pool(held_out=choice)} for choice in (False, True))
    assert min(len(own), len(held_out)) > 90
    assert not own & held_out
    kinds: dict[str, list[bytes]] = {}
    for sound in sounds.every(recorded=False):
        kinds.setdefault(sound.kind, []).append(sound.samples.astype(np.float32).tobytes())
    assert len(kinds) >= 7
    for one in kinds.values():
        assert 0 <= len(own & set(one)) - len(held_out & set(one)) <= 1


@pytest.mark.parametrize("held_out", [False, True])
def test_any_sound_of_the_pool_is_drawn(held_out, monkeypatch: pytest.MonkeyPatch):
    """Over many clips, most of them; a sound of a test only if it is asked for."""
    drawn = []
    monkeypatch.setattr(around, "_part", lambda sound, size, *_: (drawn.append(sound.tobytes()), np.zeros(size))[1])
    for seed in range(400):
        around.add(np.ones(800), np.random.default_rng(seed), held_out=held_out)
    pool = {sound.tobytes() for sound in around.pool(held_out=held_out)}
    assert set(drawn) <= pool
    assert len(set(drawn)) > 0.9 * len(pool)


def test_noise_is_as_loud_as_asked():
    """At 10 dB signal to noise, what noise adds has a tenth of the power of the speech."""
    noisy = dataclasses.replace(QUIET, noise=1, noise_snr_db=(10, 10))
    speech = speechlike(4.0, 16_000)
    ratios = []
    for seed in range(8):
        clean, heard = (
            augment.telephone_line(speech, 16_000, config, np.random.default_rng(seed)) / 32768
            for config in (dataclasses.replace(QUIET, noise=1, noise_snr_db=(90, 90)), noisy)
        )
        ratios.append(10 * np.log10(np.mean(clean**2) / np.mean((heard - clean) ** 2)))
    assert np.mean(ratios) == pytest.approx(10, abs=0.7)


@pytest.mark.parametrize(("rate", "burst"), [(0.02, 1.0), (0.05, 3.0), (0.2, 2.0)])
def test_packets_are_lost_at_the_rate_and_in_bursts_as_asked(rate: float, burst: float):
    """Over many packets, the share that is lost and the mean length of a burst are the model's."""
    lost = augment.lost_packets(200_000, rate, burst, np.random.default_rng(2))
    starts = np.count_nonzero(lost[1:] & ~lost[:-1])
    assert lost.mean() == pytest.approx(rate, rel=0.1)
    assert lost.sum() / starts == pytest.approx(burst, rel=0.1)
    assert not augment.lost_packets(1000, 0.0, 2.0, np.random.default_rng(2)).any()


def test_lost_packets_are_silent_or_repeated_and_fade():
    """Concealed are the lost packets alone: by zeros, or by the last good one at half, then a quarter of its level."""
    pcm = np.repeat(np.array([1000, 2000, 3000, 4000, 5000], dtype=np.int16), 160)
    lost = np.array([False, True, True, False, True])
    assert augment.conceal(pcm, lost, repeat=False)[::160].tolist() == [1000, 0, 0, 4000, 0]
    assert augment.conceal(pcm, lost, repeat=True)[::160].tolist() == [1000, 500, 250, 4000, 2000]
    assert pcm[160] == 2000


def test_a_last_packet_that_is_not_full_is_concealed_too():
    """A clip that ends within a packet keeps its length."""
    pcm = np.full(200, 1000, dtype=np.int16)
    assert augment.conceal(pcm, np.array([False, True]), repeat=True)[155:165].tolist() == [1000] * 5 + [500] * 5


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_share_of_clips_is_as_asked(probability: float):
    """That share of clips goes over a line; the others stay what they were, at their own rate."""
    clip = Clip(16_000, speechlike(0.1, 16_000).tobytes(), 2, (0.1, 0.2, 0.3, 0.4))
    config = dataclasses.replace(PRESENCE, probability=probability)
    heard = [clip.through(config, np.random.default_rng(seed)) for seed in range(300)]
    assert np.mean([one != clip for one in heard]) == pytest.approx(probability, abs=0.08)
    assert {(one.label, one.votes) for one in heard} == {(clip.label, clip.votes)}


def test_a_line_is_a_function_of_its_generator():
    """The same seed gives the same line, another one another."""
    speech = speechlike(0.5, 16_000)
    first, again, other = (
        augment.telephone_line(speech, 16_000, PRESENCE, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "samples", [np.zeros(8000, np.int16), np.full(160, 32767, np.int16), np.array([5, 6], np.int16)]
)
def test_silence_full_scale_and_next_to_nothing_pass(samples: np.ndarray):
    """Unusual utterances come out as samples for every draw."""
    for seed in range(10):
        heard = augment.telephone_line(samples, 16_000, PRESENCE, np.random.default_rng(seed))
        assert heard.dtype == np.int16


def test_each_condition_of_the_table_adds_to_the_one_before():
    """The robustness table starts clean and gets worse, one thing at a time."""
    names = list(augment.CONDITIONS)
    assert names[0] == "clean"
    assert augment.CONDITIONS["clean"].probability == 0
    for before, after in pairwise(names[1:]):
        changed = {
            field.name
            for field in dataclasses.fields(AugmentConfig)
            if getattr(augment.CONDITIONS[before], field.name) != getattr(augment.CONDITIONS[after], field.name)
        }
        assert changed in ({"mu_law"}, {"noise", "noise_snr_db"}, {"loss", "loss_rate"})
