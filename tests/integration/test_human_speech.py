"""People's recorded voices, over a real Kafka, in noise: the utterances in Redis are where somebody speaks."""

import wave
from functools import partial
from uuid import uuid4

import numpy as np
import pytest

from callmood.schemas.common import Role
from callmood.worker.commands.recordings import Recording, Shape

pytestmark = pytest.mark.timeout(240)

_RATE_HZ = 8000
_FRAME = 160  # 20 ms
_PROMPTS = (
    ("demo-congrats", "vm-intro", "queue-thankyou", "demo-moreinfo", "dir-intro"),
    ("auth-incorrect", "demo-nogo", "vm-opts-full", "agent-loginok", "demo-thanks"),
)


def _prompt(folder, name):
    with wave.open(str(folder / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


def _conversation(folder, random):
    """Both channels by turns, 1 to 3 s between: clean speech, samples x 2, and where each prompt stands."""
    at, placed = 0, ([], [])
    for turn in range(2 * len(_PROMPTS[0])):
        prompt = _prompt(folder, _PROMPTS[turn % 2][turn // 2])
        at += int(random.uniform(1, 3) * _RATE_HZ)
        placed[turn % 2].append((at, prompt))
        at += prompt.size
    clean = np.zeros(((at + _RATE_HZ) // _FRAME * _FRAME, 2))
    for channel, prompts in enumerate(placed):
        for first, prompt in prompts:
            clean[first : first + prompt.size, channel] = prompt
    return clean, [[(first, first + prompt.size) for first, prompt in prompts] for prompts in placed]


def _noisy(clean, spans, random):
    """White noise 20 dB below the speech of each channel."""
    noisy = clean.copy()
    for channel, placed in enumerate(spans):
        power = np.mean(np.concatenate([clean[start:end, channel] for start, end in placed]) ** 2)
        noisy[:, channel] += random.standard_normal(len(clean)) * np.sqrt(power / 100)
    return np.clip(np.round(noisy), -32768, 32767).astype(np.int16)


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


def _marked(utterances, channel, frames):
    marks = np.zeros(frames, bool)
    for utterance in utterances:
        if utterance["channel"] == channel:
            marks[round(utterance["start_ms"] / 20) : round(utterance["end_ms"] / 20)] = True
    return marks


def test_utterances_cover_what_people_say(running, speech_folder, tmp_path):
    """Sent as PCMU at 20 dB SNR: at most 3 % of the speech is missed and 8 % of the silence marked."""
    random = np.random.default_rng(5)
    clean, spans = _conversation(speech_folder, random)
    noisy = _noisy(clean, spans, random)
    recording = Recording(tmp_path, len(noisy), (Role.CUSTOMER, Role.AGENT), Shape(), partial(list, [noisy]))
    call_id = f"people-{uuid4().hex[:8]}"
    running.send({call_id: recording})
    running.assert_exact({call_id: recording})

    counts = np.zeros((2, 4))
    for channel, placed in enumerate(spans):
        marks = _marked(running.utterances(call_id), channel, len(clean) // _FRAME)
        for count, truth in zip(counts, _truths(clean[:, channel], placed), strict=True):
            count += [(truth & ~marks).sum(), truth.sum(), (~truth & marks).sum(), (~truth).sum()]
    missed, marked = counts[:, 0] / counts[:, 1], counts[:, 2] / counts[:, 3]
    assert (missed <= 0.03).all(), missed
    assert (marked <= 0.08).all(), marked
    assert running.call(call_id)["roles"]["customer"]["emotion"]["utterances"] >= len(_PROMPTS[0])
