"""The speech check: its rule on frames, and its verdicts on tones, tunes and people."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from callmood.schemas.common import Encoding
from callmood.worker import g711
from callmood.worker.engine.check import SpeechCheck, verdict
from callmood.worker.records import Speech

RATE_HZ = 8_000
EXAMPLES = Path(__file__).parents[2] / "examples" / "calls"
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
S = 31  # frames of about a second


def frames(*stretches):
    """Probabilities of frames: (how many, how likely), one after the other."""
    return np.concatenate([np.full(count, likely, np.float32) for count, likely in stretches])


def ms(frames_):
    return frames_ * 32


@pytest.fixture(scope="module")
def check():
    return SpeechCheck.open()


@pytest.fixture(scope="module")
def speech():
    """Twelve seconds of a synthetic speaker without long pauses."""
    samples, rate_hz = soundfile.read(EXAMPLES / "billing.flac", dtype="float64")
    assert rate_hz == RATE_HZ
    pieces = samples[: len(samples) // 400 * 400, 0].reshape(-1, 400)
    return pieces[np.abs(pieces).max(axis=1) > 0.02].reshape(-1)[: 12 * RATE_HZ]


def pcmu(samples):
    return Encoding.PCMU, RATE_HZ, g711.encode_pcmu(np.clip(samples * 32768, -32768, 32767).astype(np.int16))


def tone(seconds, *hz):
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return sum((np.sin(2 * np.pi * f * t) for f in hz), 0 * t) * 0.1


def bass():
    """Plucked notes with rests between them, as low as a voice."""
    random, out, t = np.random.default_rng(0), np.zeros(4 * RATE_HZ), np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    for number in range(10):
        hz, first = random.uniform(80, 170), number * t.size
        note = sum(weight * np.sin(2 * np.pi * hz * k * t) for k, weight in enumerate((1, 0.9, 0.7, 0.5, 0.3, 0.2), 1))
        out[first : first + t.size] += note * np.exp(-t / 0.5) * np.minimum(1, (t[-1] - t) / 0.02) * (number % 6 < 4)
    return out / out.std() * 0.05 + random.normal(0, 6e-4, out.size)


# -- the rule


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        pytest.param(frames((20, 0.9)), Speech(1.0, 0, 640), id="a word"),
        pytest.param(frames((20, 0.1)), Speech(0.0, 0, 0), id="nothing"),
        pytest.param(frames((15, 0.1), (5, 0.9)), Speech(0.25, 0, 640), id="a quarter of a short one"),
        pytest.param(frames((16, 0.1), (4, 0.9)), Speech(0.2, 0, 0), id="less than a quarter"),
        pytest.param(frames((400, 0.1), (11, 0.9), (20, 0.1)), Speech(0.234, 0, 0), id="a few frames in a tune"),
        pytest.param(frames(*[(7, 0.9), (40, 0.1)] * 9), Speech(0.149, 0, 0), id="a few again and again"),
        pytest.param(frames((1, 0.5)), Speech(0.0, 0, 0), id="one frame that is as likely as not"),
    ],
)
def test_somebody_speaks_if_a_quarter_of_some_stretch_is_voiced(probabilities, expected):
    """The stretch is 1.5 s long, or the utterance, if that is shorter; the share is what is published."""
    assert verdict(probabilities, ms(len(probabilities))) == expected


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        pytest.param([(10 * S, 0.1), (40, 0.9), (5, 0.1)], (ms(10 * S - 6), ms(10 * S + 45)), id="a tune, then a word"),
        pytest.param([(5, 0.1), (40, 0.9), (10 * S, 0.1)], (0, ms(51)), id="a word, then a tune"),
        pytest.param([(S - 1, 0.1), (40, 0.9), (S - 1, 0.1)], (0, ms(2 * S + 38)), id="less than a second of it"),
        pytest.param([(90, 0.1), (3, 0.9), (90, 0.1), (40, 0.9)], (ms(177), ms(223)), id="a chance frame long before"),
    ],
)
def test_other_sound_before_and_behind_the_words_does_not_count(probabilities, expected):
    """The part that counts ends 0.2 s beside the words; where there is less than a second, nothing is cut off."""
    probabilities = frames(*probabilities)
    found = verdict(probabilities, ms(len(probabilities)))
    assert (found.start_ms, found.end_ms) == expected
    assert not found.is_sparse


def test_words_around_a_tune_are_speech_without_an_emotion():
    """What is between them is not cut out, so the model is not to hear it."""
    around = verdict(frames((30, 0.9), (100, 0.1), (30, 0.9)), ms(160))
    assert (around.start_ms, around.end_ms, around.is_sparse) == (0, ms(160), True)
    assert not verdict(frames((60, 0.9), (100, 0.1), (60, 0.9)), ms(220)).is_sparse


def test_the_part_stays_within_the_utterance():
    """The last frame may be filled up: its end is the utterance's."""
    assert verdict(frames((20, 0.9)), 625) == Speech(1.0, 0, 625)


# -- sounds


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(tone(4, 425), id="ringback"),
        pytest.param(tone(4, 480, 620), id="busy"),
        pytest.param(tone(4, 1400), id="beep"),
        pytest.param(tone(4, 1100), id="fax"),
        pytest.param(tone(0.6, 697, 1209), id="a key"),
        pytest.param(bass(), id="a bass"),
        pytest.param(
            np.concatenate([tone(0.1, 852, 1336), tone(0.1), tone(0.1, 697, 1209), tone(0.1)] * 8), id="a number"
        ),
        pytest.param(np.random.default_rng(1).normal(0, 0.03, 4 * RATE_HZ), id="noise"),
        pytest.param(np.zeros(4 * RATE_HZ), id="silence"),
    ],
)
def test_tones_and_noise_are_not_speech(check, samples):
    """What networks, machines and lines send is nobody's speech."""
    assert not check.judge(pcmu(samples)).is_speech


def test_a_person_is_speech(check, speech):
    """All of an utterance counts, in the codec and rate that it came in."""
    for sound in (
        pcmu(speech),
        (Encoding.PCMA, RATE_HZ, g711.encode_pcma((speech * 32768).astype(np.int16))),
        (Encoding.S16LE, RATE_HZ, (speech * 32768).astype("<i2").tobytes()),
        (Encoding.S16LE, 16_000, np.repeat(speech * 32768, 2).astype("<i2").tobytes()),
    ):
        assert check.judge(sound) == Speech(pytest.approx(0.95, abs=0.051), 0, 12_000)


def test_only_the_words_behind_a_tone_count(check, speech):
    """Ten seconds of ringback, then an answer: the part that counts begins where the answer does."""
    found = check.judge(pcmu(np.concatenate([tone(10, 440, 480), speech[: 2 * RATE_HZ]])))
    assert found.start_ms == pytest.approx(10_000, abs=400)
    assert found.end_ms == 12_000


def test_a_real_person_is_speech(check):
    """Prompts of a human speaker, from short to long."""
    files = sorted(PROMPTS.glob("vm-*.wav"))[::8]
    if not files:
        pytest.skip("asterisk-core-sounds-en-wav is not installed")
    for file in files:
        samples, _ = soundfile.read(file)
        assert check.judge(pcmu(samples)).is_speech, file


def test_neighbours_change_nothing(check, speech):
    """The verdict on an utterance is the same alone and between any others, in any order."""
    sounds = [pcmu(speech[first : first + length]) for first, length in ((0, 9_000), (5_000, 31_111), (777, 4_444))]
    alone = [SpeechCheck.open().judge(sound) for sound in sounds]
    assert [check.judge(sound) for sound in sounds] == alone
    assert [check.judge(sound) for sound in reversed(sounds)] == alone[::-1]


# -- failures


class Broken(torch.nn.Module):
    """A network that fails on some waveforms."""

    def __init__(self, is_bad):
        super().__init__()
        self._is_bad = is_bad

    def forward(self, waveform):
        """Fail, return what is no number where it is loud, or find nothing."""
        if self._is_bad(waveform):
            raise RuntimeError("broken")
        return waveform.abs()[::256] * torch.nan if waveform.abs().max() > 0.5 else waveform[::256] * 0


def test_an_utterance_that_cannot_be_judged_counts_as_speech(caplog):
    """A failure and a result that is no number are logged and give no verdict; the next utterance is judged."""
    check = SpeechCheck(Broken(lambda waveform: 0 < waveform.abs().max() < 0.5))
    with caplog.at_level(logging.ERROR):
        assert check.judge(pcmu(tone(1, 400))) is None
        assert check.judge(pcmu(tone(1, 400) * 9)) is None
    assert [record.message for record in caplog.records] == ["speech check failed on one utterance"] * 2
    assert check.judge(pcmu(np.zeros(8_000))) == Speech(0.0, 0, 0)


def test_a_check_that_fails_on_silence_is_broken():
    """Then no verdict can be trusted, and the process must end."""
    with pytest.raises(RuntimeError, match="broken"):
        SpeechCheck(Broken(lambda _: True)).judge(pcmu(tone(1, 400)))
