"""The benchmark of the speech check: its sounds, its lines and its counting."""

from collections import Counter

import numpy as np
import pytest

from callmood.bench import field
from callmood.schemas.common import Encoding
from callmood.training.synthetic import sounds
from callmood.training.synthetic.sounds import RATE_HZ, Sound, cadence
from callmood.worker.engine.check import SpeechCheck
from callmood.worker.model import silero


@pytest.fixture(scope="module")
def every():
    return list(sounds.every())


def heard(*, is_speech, counts, found_ms=0, kept_ms=0, probabilities=(0.2,)):
    sound = Sound("kind", "name", np.zeros(8))
    return field.Heard(
        sound, is_speech, -25, "mu-law", np.array(probabilities, np.float32), 32, counts, found_ms, kept_ms
    )


def test_there_are_enough_sounds_without_those_of_debian(every):
    """More than 200 that nobody makes, tones of at least 20 countries among them; the seed decides each sample."""
    kinds = Counter(sound.kind for sound in every)
    assert sum(kinds.values()) - kinds["hold tunes, recorded"] >= 200
    assert len(sounds.TONES) >= 20
    assert kinds["network tones"] == 4 * len(sounds.TONES)
    assert kinds["hold tunes, synthesised"] >= 10
    assert len({(sound.kind, sound.name) for sound in every}) == len(every)
    for sound, again in zip(every, sounds.every(), strict=True):
        assert np.isfinite(sound.samples).all()
        assert sound.samples.std() > 0
        assert np.array_equal(sound.samples, again.samples)


def test_a_cadence_is_on_and_off_as_it_says():
    """Frequencies after each other, added or modulated, each for its time, and again from the start."""
    tone = cadence("425/200 0/300", seconds=1.0)
    loud = np.abs(tone).reshape(10, -1).max(axis=1) > 0.5
    assert loud.tolist() == [True, True, False, False, False] * 2
    strongest = np.abs(np.fft.rfft(cadence("350+440", seconds=1.0))).argsort()[-2:]
    assert sorted(strongest) == [350, 440]
    modulated = np.abs(np.fft.rfft(cadence("400*25", seconds=1.0)))
    assert sorted(modulated.argsort()[-3:]) == [375, 400, 425]


@pytest.mark.parametrize("line", field.LINES)
def test_a_line_keeps_the_length_and_the_seed_decides_it(line):
    """What comes out is as long as what went in, but for a part of a packet."""
    pcm = (cadence("400", seconds=1.003) * 8_000).astype(np.int16)
    once, again = (field.LINES[line].distort(pcm, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(once, again)
    assert pcm.size - RATE_HZ // 50 < once.size <= pcm.size


def test_packets_are_lost_at_the_rate_and_in_bursts():
    """A tenth of the packets, three in a row on average, each half as loud as the one before."""
    pcm = np.full(RATE_HZ * 200, 8_000, np.int16)
    lost = field.lossy(pcm, np.random.default_rng(1), rate=0.1, burst=3.0).reshape(-1, RATE_HZ // 50)[:, 0] < 8_000
    assert lost.mean() == pytest.approx(0.1, abs=0.02)
    begun = np.count_nonzero(np.diff(lost.astype(int)) == 1)
    assert lost.sum() / begun == pytest.approx(3.0, abs=0.5)


def test_errors_are_shares_of_utterances_and_of_speech():
    """One of four sounds counts as speech; of 4 s of speech, 1 s is cut off, and 1 s does not count as speech."""
    everything = [
        heard(is_speech=False, counts=True, probabilities=(0.6,)),
        *[heard(is_speech=False, counts=False)] * 3,
        heard(is_speech=True, counts=True, found_ms=3_000, kept_ms=2_000, probabilities=(0.6,)),
        heard(is_speech=True, counts=False, found_ms=1_000),
    ]
    assert field.errors(everything) == (4, 25.0, 4.0, 50.0)
    assert field.errors(everything, field.RULES["a frame above 0.5"]) == (4, 25.0, 4.0, 25.0)


def test_a_sound_over_a_line_is_cut_and_judged():
    """Ringback gives an utterance for each ring, none of which counts; it holds no speech that could be lost."""
    ring = Sound("network tones", "ringback", cadence("440/1000 0/3000", seconds=8.0))
    found = field.hear(ring, -25, "GSM", SpeechCheck.open(), is_speech=False)
    assert len(found) == 2
    assert [(one.counts, one.found_ms, one.kept_ms) for one in found] == [(False, 0, 0)] * 2


def test_speech_is_counted_where_it_is_audible():
    """Of a prompt with a pause, the audible frames that the segmenter found are the speech, all of them kept."""
    t = np.arange(3 * RATE_HZ) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 2 * t)) / RATE_HZ
    words = sum(np.sin(k * phase) for k in (1, 2, 3, 4, 8)) * ((t < 1) | (t >= 2))

    class Sure:
        """A network for which everything is speech."""

        def __call__(self, waveform):
            """Of each frame."""
            return (waveform[:: silero.FRAME] * 0) + 1

    found = field.hear(Sound("English", "words", words), -25, "mu-law", SpeechCheck(Sure()), is_speech=True)
    assert sum(one.found_ms for one in found) == sum(one.kept_ms for one in found) == pytest.approx(2_000, abs=60)
    assert all(one.counts for one in found)


@pytest.mark.timeout(180)
def test_the_command_prints_its_tables(capsys, monkeypatch):
    """Errors by sound, line, level and rule, the alerts of calls without speech, and the cost: each has its line."""
    few = [Sound("network tones", "busy", cadence("480+620/500 0/500", 3.0))]
    monkeypatch.setattr(field.sounds, "every", lambda: iter(few))
    monkeypatch.setattr(field, "VOICES", {})
    monkeypatch.setattr(field, "LEVELS_DBFS", (-15,))
    monkeypatch.setattr(field, "LINES", {name: field.LINES[name] for name in ("GSM", "mu-law, 3 % lost")})
    monkeypatch.setattr(field, "_print_cost", lambda console: console.print("cost"))
    assert field.run(field.add_arguments(field.argparse.ArgumentParser()).parse_args(["--processes", "1"])) == 0
    printed = capsys.readouterr().out
    for text in (
        "1 sounds, 0 prompts, 1 levels, 2 lines",
        "network tones",
        "mu-law, 3 % lost",
        "-15 dBFS",
        "a frame above",
    ):
        assert text in printed
    assert "a call of network tones, 5 s: talk 0.0 s" in printed
    assert "alerts: none" in printed


def test_encodings_of_the_lines_are_those_of_telephony():
    """Linear, mu-law and A-law are among them."""
    assert {line.encoding for line in field.LINES.values()} == {Encoding.S16LE, Encoding.PCMU, Encoding.PCMA}
