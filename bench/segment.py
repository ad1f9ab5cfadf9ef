"""Segmentation of real human speech in noise: missed speech and marked silence by setting, and what it costs.

Run `python -m callmood.bench.segment [FOLDER]`.
FOLDER holds 8 kHz mono WAV prompts (Debian: asterisk-core-sounds-en-wav). Two
speakers take turns on two channels, or one channel has them all. Truth is known by construction, in two definitions:
with `extent`, a prompt's whole file is speech, including the room tone at its ends; with `energy`, speech is from the
first to the last 20 ms frame within 40 dB of a prompt's loudest one. Silence is everything else: the gaps and the
other speaker's turns.
"""

import sys
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from rich.console import Console
from rich.table import Table

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcmu
from callmood.worker.records import Cut
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.segment import Segmenter
from callmood.worker.speech.vad import Vad

Samples = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RATE_HZ = 8000
FRAME = RATE_HZ // 50
SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
PROMPTS = """
agent-loginok auth-incorrect basic-pbx-ivr-main conf-adminmenu conf-usermenu demo-abouttotry demo-congrats
demo-echotest demo-moreinfo demo-nogo demo-thanks dir-intro priv-callee-options queue-thankyou screen-callee-options
vm-incorrect vm-intro vm-msginstruct vm-options vm-opts-full
"""
NOISES = ("white", "pink")
RATES_HZ = (8000, 16000)


@dataclass(frozen=True)
class Channel:
    """One channel of a call at 8 kHz, and which of its 20 ms frames are speech by each definition."""

    pcm: npt.NDArray[np.int16]
    extent: Mask
    energy: Mask


def load(folder: Path, names: list[str]) -> list[Samples]:
    """The prompts' samples."""
    prompts = []
    for name in names:
        with wave.open(str(folder / f"{name}.wav")) as file:
            prompts.append(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64))
    return prompts


def call(prompts: list[Samples], noise: str, snr_db: float, seed: int, turns: int = 2) -> list[Channel]:
    """The prompts in random order, on `turns` channels in turn, with 1-3 s between them, in noise all along."""
    random = np.random.default_rng(seed)
    order, placed, at = random.permutation(len(prompts)), [[] for _ in range(turns)], 0  # type: ignore[var-annotated]
    for number, index in enumerate(order):
        at += int(random.uniform(1, 3) * RATE_HZ)
        placed[number % turns].append((at, prompts[index]))
        at += prompts[index].size
    length = at + RATE_HZ
    return [_channel(spoken, length - length % FRAME, _noise(random, noise, length), snr_db) for spoken in placed]


def _channel(placed: list[tuple[int, Samples]], length: int, noise: Samples, snr_db: float) -> Channel:
    clean = np.zeros(length)
    extent, energy = np.zeros(length // FRAME, np.bool_), np.zeros(length // FRAME, np.bool_)
    for at, prompt in placed:
        clean[at : at + prompt.size] = prompt
        first, last = round(at / FRAME), round((at + prompt.size) / FRAME)
        extent[first:last] = True
        power = (clean[first * FRAME : last * FRAME].reshape(-1, FRAME) ** 2).mean(axis=1)
        heard = np.flatnonzero(power > power.max() * 1e-4)
        energy[first + heard[0] : first + heard[-1] + 1] = True
    speech_power = np.mean(clean[np.repeat(extent, FRAME)] ** 2)
    noisy = clean + noise[:length] * np.sqrt(speech_power / 10 ** (snr_db / 10))
    return Channel(np.clip(np.round(noisy), -32768, 32767).astype(np.int16), extent, energy)


def _noise(random: np.random.Generator, kind: str, length: int) -> Samples:
    white = random.standard_normal(length)
    if kind == "white":
        return white
    spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(1, np.arange(length // 2 + 1)))
    pink = np.fft.irfft(spectrum, length)
    return np.asarray(pink / pink.std())


def found(pcm: npt.NDArray[np.int16], rate_hz: int, settings: SegmentSettings) -> Mask:
    """The 20 ms frames that lie in an utterance; 8 kHz goes through PCMU, 16 kHz is resampled S16LE."""
    wide = rate_hz != RATE_HZ
    audio = soxr.resample(pcm, RATE_HZ, rate_hz).tobytes() if wide else encode_pcmu(pcm)
    channel = Segmenter(Encoding.S16LE if wide else Encoding.PCMU, rate_hz, settings)
    mask, frame = np.zeros(pcm.size // FRAME, np.bool_), rate_hz / 50
    for span in channel.feed(0, audio) + channel.close(Cut.END):
        mask[round(span.start_sample / frame) : round(span.end_sample / frame)] = True
    return mask


def errors(channels: list[Channel], marks: list[Mask], definition: str) -> tuple[float, float]:
    """Share of speech frames missed and of silence frames marked, over all channels."""
    truth = np.concatenate([getattr(channel, definition) for channel in channels])
    mark = np.concatenate(marks)
    return float((truth & ~mark).sum() / truth.sum()), float((~truth & mark).sum() / (~truth).sum())


def _settings() -> Iterator[tuple[str, SegmentSettings]]:
    yield "default", SegmentSettings()
    for padding_ms in (0, 60, 100, 200):
        yield f"padding {padding_ms} ms", SegmentSettings(padding_ms=padding_ms)
    for mode in (0, 1, 3):
        yield f"mode {mode}", SegmentSettings(vad_mode=mode)
    for window_ms in (300, 800):
        yield f"close window {window_ms} ms", SegmentSettings(close_window_ms=window_ms)


def main() -> None:
    """Print the tables."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SOUNDS
    prompts, console = load(folder, PROMPTS.split()), Console()
    for turns, title in ((2, "two speakers in turn on two channels"), (1, "one channel, 1-3 s between prompts")):
        _print_quality(console, prompts, turns, title)
    _print_cost(console, np.concatenate([c.pcm for c in call(prompts, "white", 20, 0)]))


def _print_quality(console: Console, prompts: list[Samples], turns: int, title: str) -> None:
    table = Table("setting", title=f"{title}, SNR 20 dB: missed speech / marked silence, % (3 seeds)")
    columns = list(product(NOISES, RATES_HZ, ("extent", "energy")))
    for noise, rate_hz, definition in columns:
        table.add_column(f"{noise}\n{rate_hz // 1000} kHz\n{definition}", justify="right")
    calls = {noise: [c for seed in range(3) for c in call(prompts, noise, 20, seed, turns)] for noise in NOISES}
    for name, settings in _settings():
        marks = {(n, r): [found(c.pcm, r, settings) for c in calls[n]] for n, r in product(NOISES, RATES_HZ)}
        cells = [errors(calls[n], marks[n, r], definition) for n, r, definition in columns]
        table.add_row(name, *(f"{100 * missed:.1f} / {100 * marked:.1f}" for missed, marked in cells))
    console.print(table)


def _print_cost(console: Console, pcm: npt.NDArray[np.int16]) -> None:
    vad, frames = Vad(2, RATE_HZ), [frame.tobytes() for frame in pcm.reshape(-1, FRAME)]
    start = time.perf_counter()
    for frame in frames:
        vad.is_speech(frame)
    detector_s = time.perf_counter() - start
    audio = encode_pcmu(pcm)
    table = Table("PCMU in chunks of", "cost / detector alone")
    for chunk_ms in (20, 100, 200, 1000):
        channel, size = Segmenter(Encoding.PCMU, RATE_HZ, SegmentSettings()), chunk_ms * RATE_HZ // 1000
        start = time.perf_counter()
        for first in range(0, len(audio), size):
            channel.feed(first, audio[first : first + size])
        table.add_row(f"{chunk_ms} ms", f"{(time.perf_counter() - start) / detector_s:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
