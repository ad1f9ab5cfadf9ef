"""The default settings on real human speech in noise, with the truth known by construction."""

import wave

import numpy as np
import pytest

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcmu
from callmood.worker.records import Cut
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.segment import Segmenter

_FRAME = 160  # 20 ms at 8 kHz
_PROMPTS = (
    ("demo-congrats", "vm-intro", "queue-thankyou", "demo-moreinfo", "dir-intro"),
    ("auth-incorrect", "demo-nogo", "vm-opts-full", "agent-loginok", "demo-thanks"),
)


def _prompt(folder, name):
    with wave.open(str(folder / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


def _call(folder, random):
    """Two channels of clean speech by turns with 1-3 s between, and where each prompt stands."""
    at, placed = 0, ([], [])
    for turn in range(2 * len(_PROMPTS[0])):
        channel = turn % 2
        prompt = _prompt(folder, _PROMPTS[channel][turn // 2])
        at += int(random.uniform(1, 3) * 8000)
        placed[channel].append((at, prompt))
        at += prompt.size
    length = (at + 8000) // _FRAME * _FRAME
    for prompts in placed:
        clean = np.zeros(length)
        for first, prompt in prompts:
            clean[first : first + prompt.size] = prompt
        yield clean, [(first, first + prompt.size) for first, prompt in prompts]


def _noise(random, kind, samples):
    white = random.standard_normal(samples)
    if kind == "white":
        return white
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.maximum(1, np.arange(samples // 2 + 1))), samples)
    return pink / pink.std()


def _truths(clean, spans):
    """Speech by 20 ms frames: the prompts' whole files, and between their first and last frame within 40 dB."""
    extent, energy = np.zeros(clean.size // _FRAME, bool), np.zeros(clean.size // _FRAME, bool)
    for start, end in spans:
        first, last = round(start / _FRAME), round(end / _FRAME)
        extent[first:last] = True
        power = (clean[first * _FRAME : last * _FRAME].reshape(-1, _FRAME) ** 2).mean(axis=1)
        heard = np.flatnonzero(power > power.max() * 1e-4)
        energy[first + heard[0] : first + heard[-1] + 1] = True
    return extent, energy


def _found(pcm):
    channel, audio = Segmenter(Encoding.PCMU, 8000, SegmentSettings()), encode_pcmu(pcm)
    marks = np.zeros(pcm.size // _FRAME, bool)
    for span in channel.feed(0, audio) + channel.close(Cut.END):
        marks[round(span.start_sample / _FRAME) : round(span.end_sample / _FRAME)] = True
    return marks


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("noise", ["white", "pink"])
def test_real_speech_is_found_in_noise(speech_folder, noise, seed):
    """At 20 dB at most 3 % of the speech is missed and 8 % of the silence marked, by either definition of speech."""
    random = np.random.default_rng(seed)
    counts = np.zeros((2, 4))
    for clean, spans in _call(speech_folder, random):
        speech_power = np.mean(np.concatenate([clean[start:end] for start, end in spans]) ** 2)
        noisy = clean + _noise(random, noise, clean.size) * np.sqrt(speech_power / 100)
        marks = _found(np.clip(np.round(noisy), -32768, 32767).astype(np.int16))
        for count, truth in zip(counts, _truths(clean, spans), strict=True):
            count += [(truth & ~marks).sum(), truth.sum(), (~truth & marks).sum(), (~truth).sum()]
    missed, marked = counts[:, 0] / counts[:, 1], counts[:, 2] / counts[:, 3]
    assert (missed <= 0.03).all()
    assert (marked <= 0.08).all()


def test_each_prompt_is_in_utterances_of_its_own(speech_folder):
    """In silence no utterance spans two prompts, and none stands where nobody spoke."""
    for clean, spans in _call(speech_folder, np.random.default_rng(3)):
        channel = Segmenter(Encoding.PCMU, 8000, SegmentSettings())
        found = channel.feed(0, encode_pcmu(clean.astype(np.int16))) + channel.close(Cut.END)
        touched = [
            [i for i, (start, end) in enumerate(spans) if u.start_sample < end and start < u.end_sample] for u in found
        ]
        assert {len(prompts) for prompts in touched} == {1}
        assert {prompts[0] for prompts in touched} == set(range(len(spans)))
