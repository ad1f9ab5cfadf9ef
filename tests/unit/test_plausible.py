"""Audio that was decoded wrongly, told from sounds of every kind."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from telephony import Leg, analyse

from callmood.bench import field
from callmood.schemas.common import Encoding, LooksLike
from callmood.training.synthetic import sounds
from callmood.worker.call.plausible import looks_like
from callmood.worker.g711 import encode_pcma, encode_pcmu, to_s16

PROMPTS = Path("/usr/share/asterisk/sounds")
SECOND = 8_000


def wrong(pcm):
    """The samples as a wrong decoder gives them, by what they are in truth."""
    return {
        LooksLike.SWAPPED_BYTES: pcm.byteswap(),
        LooksLike.PCMA: to_s16(Encoding.PCMU, encode_pcma(pcm)),
        LooksLike.PCMU: to_s16(Encoding.PCMA, encode_pcmu(pcm)),
    }


def at(samples, dbfs):
    """Samples at a level, as int16."""
    power = float(np.square(samples).mean()) or 1.0
    return np.clip(np.rint(samples / power**0.5 * 10 ** (dbfs / 20) * 32767), -32768, 32767).astype(np.int16)


def as_sent(pcm):
    """The samples through each encoding that a producer can send."""
    return [pcm, to_s16(Encoding.PCMU, encode_pcmu(pcm)), to_s16(Encoding.PCMA, encode_pcma(pcm))]


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="needs asterisk-core-sounds-*-wav")
def test_human_speech_is_told():
    """Prompts of several voices at several levels: nearly all are told when decoded wrongly, none otherwise."""
    told, false, total = dict.fromkeys(LooksLike, 0), [], 0
    for voice in field.VOICES:
        for prompt in field.prompts(voice, 25):
            for dbfs in (-15, -28, -40):
                pcm = at(prompt.samples, dbfs)
                total += 1
                false += [prompt.name for sent in as_sent(pcm) if looks_like(sent)]
                for truth, samples in wrong(pcm).items():
                    told[truth] += looks_like(samples) is truth
    assert total >= 75  # one voice
    assert not false
    assert told[LooksLike.SWAPPED_BYTES] >= 0.97 * total
    assert min(told.values()) >= 0.94 * total


@pytest.mark.slow
def test_no_other_sound_is_told():
    """Tones of twenty countries, keys, modems, tunes, noises and rooms look right at three levels."""
    false = []
    for sound in sounds.every():
        for dbfs in (-6, -20, -40):
            pcm = at(sound.samples[: 12 * SECOND], dbfs)
            for first in range(0, max(1, len(pcm) - SECOND // 2), 4 * SECOND):
                parts = as_sent(pcm[first : first + 4 * SECOND])
                false += [(sound.kind, sound.name, dbfs) for part in parts if looks_like(part)]
    assert not false


@pytest.mark.parametrize("hz", [50, 425, 1_000, 1_400, 2_000, 2_600, 3_000, 3_500, 3_900])
@pytest.mark.parametrize("dbfs", [-3, -20, -50])
def test_a_tone_of_any_pitch_looks_right(hz, dbfs):
    """High tones are as rough as noise, and so is everything that is made of them."""
    tone = at(np.sin(2 * np.pi * hz * np.arange(2 * SECOND) / SECOND), dbfs)
    assert [looks_like(sent) for sent in as_sent(tone)] == [None] * 3


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_noise_looks_right(slope):
    """White, and with more of the high frequencies, up to full scale."""
    noise = np.diff(np.random.default_rng(1).normal(0, 1, 3 * SECOND), slope)
    assert {looks_like(sent) for dbfs in (0, -6, -30, -60) for sent in as_sent(at(noise, dbfs))} == {None}


@pytest.mark.parametrize("pcm", [np.zeros(0), np.zeros(800), np.full(800, 77), np.arange(1)])
def test_without_a_sound_nothing_is_told(pcm):
    """Nothing, silence, an offset and one sample."""
    assert looks_like(pcm.astype(np.int16)) is None


def _vowels():
    t = np.arange(6 * SECOND) / SECOND
    phase = 2 * np.pi * np.cumsum(150 * (1 + 0.1 * np.sin(2 * np.pi * 2 * t))) / SECOND
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (np.sin(np.pi * t / 2) > 0)
    return at(tone, -20)


@pytest.mark.parametrize(
    ("encoding", "value", "found"),
    [
        ("pcmu", encode_pcma, "pcma"),
        ("pcma", encode_pcmu, "pcmu"),
        ("s16le", lambda pcm: pcm.astype(">i2").tobytes(), "swapped_bytes"),
        ("s16be", lambda pcm: pcm.astype("<i2").tobytes(), "swapped_bytes"),
        ("pcmu", encode_pcmu, None),
        ("s16le", lambda pcm: pcm.astype("<i2").tobytes(), None),
    ],
)
def test_a_call_counts_what_looks_wrong(encoding, value, found):
    """Each utterance says what it looks like, and the call how many there are."""
    leg = Leg()
    data = value(_vowels())
    step = len(data) // 30
    sent = [leg.send("media", data[first : first + step], encoding=encoding) for first in range(0, len(data), step)]
    sent = [item._replace(headers={**item.headers, "media_ms": str(200 * n)}) for n, item in enumerate(sent)]
    store = analyse([*sent, leg.send("end", media_ms="6000")])
    looks = {one["quality"]["looks_like"] for one in store.of()}
    assert looks == {found}
    assert store.calls["call-1"]["doubtful_format"] == (len(store.of()) if found else 0)


def test_recordings_of_music_look_right():
    """Debian's hold tunes, if they are installed."""
    tunes = sorted(Path("/usr/share/asterisk/moh").glob("*.wav"))
    for path in tunes:
        samples, _ = soundfile.read(path, dtype="int16", frames=60 * SECOND)
        parts = [samples[first : first + 10 * SECOND] for first in range(0, len(samples), 10 * SECOND)]
        assert {looks_like(sent) for part in parts for sent in as_sent(part)} == {None}, path.name
