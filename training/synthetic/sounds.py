"""Sounds of a telephone line that no person makes, at 8 kHz: tones, modems, hold tunes, noises. The seed decides all.

Frequencies and cadences of tones are those of national networks as ITU-T E.180's annex lists them, DTMF's are Q.23's,
the special information tones' E.180's and the North American plan's, fax and modem signals' T.30's, V.21's and V.8's.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from callmood.training.synthetic.arrays import Samples

RATE_HZ: Final = 8000
TUNES: Final = Path("/usr/share/asterisk/moh")
"""Debian's asterisk-moh-opsound-wav."""

_SECONDS: Final = 12.0

TONES: Final = {
    "Australia": ("413+438", "425/375 0/375", "413+438/400 0/200 413+438/400 0/2000", "425/375 0/375 420/375 0/375"),
    "Austria": ("420", "420/400 0/400", "420/1000 0/5000", "420/200 0/200"),
    "Belgium": ("425", "425/500 0/500", "425/1000 0/3000", "425/167 0/167"),
    "Brazil": ("425", "425/250 0/250", "425/1000 0/4000", "425/250 0/250 425/750 0/250"),
    "Chile": ("400", "400/500 0/500", "400/1000 0/3000", "400/200 0/200"),
    "China": ("450", "450/350 0/350", "450/1000 0/4000", "450/700 0/700"),
    "Czechia": ("425/330 0/330 425/660 0/660", "425/330 0/330", "425/1000 0/4000", "425/165 0/165"),
    "Finland": ("425", "425/300 0/300", "425/1000 0/4000", "425/200 0/200"),
    "France": ("440", "440/500 0/500", "440/1500 0/3500", "440/250 0/250"),
    "Germany": ("425", "425/480 0/480", "425/1000 0/4000", "425/240 0/240"),
    "Greece": ("425/200 0/300 425/700 0/800", "425/300 0/300", "425/1000 0/4000", "425/200 0/200"),
    "Hungary": ("425", "425/300 0/300", "425/1250 0/3750", "425/300 0/300"),
    "India": ("400*25", "400/750 0/750", "400*25/400 0/200 400*25/400 0/2000", "400/250 0/250"),
    "Israel": ("414", "414/500 0/500", "414/1000 0/3000", "414/250 0/250"),
    "Italy": ("425/200 0/200 425/600 0/1000", "425/500 0/500", "425/1000 0/4000", "425/200 0/200"),
    "Japan": ("400", "400/500 0/500", "400*15/1000 0/2000", "400/500 0/500"),
    "Mexico": ("425", "425/250 0/250", "425/1000 0/4000", "425/250 0/250"),
    "New Zealand": ("400", "400/500 0/500", "400+450/400 0/200 400+450/400 0/2000", "400/250 0/250"),
    "Spain": ("425", "425/200 0/200", "425/1500 0/3000", "425/200 0/200 425/200 0/200 425/200 0/600"),
    "Switzerland": ("425", "425/500 0/500", "425/1000 0/4000", "425/200 0/200"),
    "United Kingdom": (
        "350+440",
        "400/375 0/375",
        "400+450/400 0/200 400+450/400 0/2000",
        "400/400 0/350 400/225 0/525",
    ),
    "United States": ("350+440", "480+620/500 0/500", "440+480/2000 0/4000", "480+620/250 0/250"),
}
"""Dial tone, busy tone, ringback and congestion: frequencies in Hz, and after a slash the ms of each element."""

_NAMES: Final = ("dial", "busy", "ringback", "congestion")
_SINGLE: Final = {
    "SIT, intercept": "913.8/274 1370.6/274 1776.7/380 0/2000",
    "SIT, vacant code": "985.2/380 1370.6/274 1776.7/380 0/2000",
    "SIT, reorder": "913.8/274 1428.5/380 1776.7/380 0/2000",
    "SIT, no circuit": "985.2/380 1428.5/380 1776.7/380 0/2000",
    "SIT, E.180": "950/330 1400/330 1800/330 0/1000",
    "SIT, E.180 with gaps": "950/330 0/30 1400/330 0/30 1800/330 0/1000",
    "beep, recording": "1400/400 0/3600",
    "beep, recording, long": "1400/500 0/5000",
    "beep, recording, China": "950/400 0/5000",
    "beep, call waiting": "440/300 0/3700",
    "beep, call waiting, twice": "425/200 0/200 425/200 0/3400",
    "beep, voice mail": "1000/1000 0/3000",
    "beep, short": "800/300 0/700",
    "beep, high": "2000/350 0/1500",
    "beep, queue": "600/300 0/100 800/300 0/2300",
    "beep, falling": "1200/250 900/250 600/250 0/2250",
    "beep, rising": "523/250 659/250 784/400 0/2100",
    "stutter dial tone": "350+440/100 0/100",
    "off-hook alarm": "1400+2060+2450+2600/100 0/100",
    "test tone 1004 Hz": "1004",
    "fax CNG": "1100/500 0/3000",
    "fax CED": "2100/3300 0/1000",
}
_DTMF_HZ: Final = ((697, 770, 852, 941), (1209, 1336, 1477, 1633))


class Sound(NamedTuple):
    """A sound of one kind, float [samples] at 8 kHz, its loudest second near full scale."""

    kind: str
    name: str
    samples: Samples


def every(seed: int = 1, *, recorded: bool = True) -> Iterator[Sound]:
    """All sounds, more than 200; `recorded`: with Debian's tunes, where they are installed."""
    random = np.random.default_rng(seed)
    for country, tones in TONES.items():
        for name, text in zip(_NAMES, tones, strict=True):
            yield Sound("network tones", f"{country}, {name}", cadence(text))
    for name, text in _SINGLE.items():
        yield Sound("beeps, SIT, fax tones", name, cadence(text))
    yield from _keypads(random)
    yield from _modems(random)
    if recorded:
        yield from _recorded_tunes()
    yield from _played_tunes(random)
    yield from _noises(random)
    yield from _rooms(random)


def cadence(text: str, seconds: float = _SECONDS) -> Samples:
    """A tone from its elements, repeated: `425/1000 0/4000`; `+` adds frequencies, `*` modulates by one."""
    parts: list[Samples] = []
    left = round(seconds * RATE_HZ)
    for element in cycle(text.split()):
        frequency, _, ms = element.partition("/")
        count = min(left, round(int(ms) * RATE_HZ / 1000) if ms else left)
        parts.append(_tone(frequency, count))
        left -= count
        if left <= 0:
            return np.concatenate(parts)
    raise AssertionError


def _tone(frequency: str, count: int) -> Samples:
    t = np.arange(count) / RATE_HZ
    if "*" in frequency:
        carrier, modulator = (float(hz) for hz in frequency.split("*"))
        return np.asarray(np.sin(2 * np.pi * carrier * t) * (1 + 0.9 * np.sin(2 * np.pi * modulator * t)) / 2)
    return np.asarray(sum(np.sin(2 * np.pi * float(hz) * t) for hz in frequency.split("+")))


def _keypads(random: np.random.Generator) -> Iterator[Sound]:
    """Numbers as people and machines dial them."""
    keys = list(product(*_DTMF_HZ))
    for on_ms, off_ms in ((60, 60), (100, 100), (150, 250), (200, 400), (400, 200), (1000, 500)):
        for number in range(3):
            dialled = random.permutation(len(keys))[:10]
            text = " ".join(f"{keys[key][0]}+{keys[key][1]}/{on_ms} 0/{off_ms}" for key in dialled)
            yield Sound("DTMF", f"{on_ms} ms on, {off_ms} ms off, {number}", cadence(text))


def _modems(random: np.random.Generator) -> Iterator[Sound]:
    t = np.arange(round(_SECONDS * RATE_HZ)) / RATE_HZ
    flips = np.sign(np.sin(np.pi * t / 0.45 + 1e-9))
    yield Sound(
        "fax and modem data", "ANSam", np.sin(2 * np.pi * 2100 * t) * flips * (1 + 0.2 * np.sin(2 * np.pi * 15 * t))
    )
    flags = np.tile([0, 1, 1, 1, 1, 1, 1, 0], 500)
    for name, low_hz, high_hz in (("V.21 high", 1650, 1850), ("V.21 low", 980, 1180), ("Bell 103", 1070, 1270)):
        yield Sound("fax and modem data", f"{name}, flags", _fsk(flags, high_hz, low_hz))
        yield Sound("fax and modem data", f"{name}, data", _fsk(random.integers(0, 2, 4000), high_hz, low_hz))
    for name, carrier_hz, baud in (
        ("V.22", 1200, 600),
        ("V.22 answer", 2400, 600),
        ("V.27", 1800, 1600),
        ("V.29", 1700, 2400),
    ):
        phases = random.integers(0, 8, round(_SECONDS * baud) + 1)[(t * baud).astype(int)] * np.pi / 4
        yield Sound("fax and modem data", name, np.cos(2 * np.pi * carrier_hz * t + phases))


def _fsk(bits: npt.NDArray[np.int_], zero_hz: float, one_hz: float, baud: float = 300.0) -> Samples:
    index = (np.arange(round(_SECONDS * RATE_HZ)) * baud / RATE_HZ).astype(int) % len(bits)
    return np.asarray(np.sin(2 * np.pi * np.cumsum(np.where(bits[index] > 0, one_hz, zero_hz)) / RATE_HZ))


def _recorded_tunes() -> Iterator[Sound]:
    """Three parts of each of Debian's hold tunes; none where they are not installed."""
    for path in sorted(TUNES.glob("*.wav")):
        import soundfile  # noqa: PLC0415 - training images may lack it

        samples, rate_hz = soundfile.read(path, dtype="float64")
        assert rate_hz == RATE_HZ
        for part in (0.1, 0.4, 0.7):
            first = int(part * len(samples))
            yield Sound(
                "hold tunes, recorded", f"{path.stem} at {part:.0%}", samples[first : first + round(_SECONDS * RATE_HZ)]
            )


Timbre = Callable[[Samples, float], Samples]


def _harmonics(weights: Sequence[float], decay_s: float = 1e9, vibrato: float = 0.0) -> Timbre:
    """A timbre: harmonics of these weights that fade, with a vibrato of 5 Hz."""

    def play(t: Samples, hz: float) -> Samples:
        phase = 2 * np.pi * hz * t + vibrato * hz / 5 * np.sin(2 * np.pi * 5 * t)
        tone = sum(weight * np.sin(k * phase) for k, weight in enumerate(weights, 1) if k * hz < RATE_HZ / 2)
        return np.asarray(tone * np.exp(-t / decay_s) * np.minimum(1, t / 0.01))

    return play


_TIMBRES: Final[dict[str, Timbre]] = {
    "sine": _harmonics([1]),
    "square": _harmonics([1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7]),
    "organ": _harmonics([1, 0.7, 0.5, 0.4, 0.1, 0.3]),
    "piano": _harmonics([1, 0.6, 0.35, 0.2, 0.1, 0.05], decay_s=0.5),
    "plucked": _harmonics([1, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2], decay_s=0.25),
    "strings": _harmonics([1 / k for k in range(1, 11)], vibrato=0.012),
    "flute": _harmonics([1, 0.3, 0.1], vibrato=0.02),
    "music box": _harmonics([1, 0, 0, 0.5, 0, 0, 0, 0.25], decay_s=0.4),
    "brass": _harmonics([0.6, 1, 0.9, 0.7, 0.5, 0.3, 0.2], vibrato=0.006),
}
_SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "five": (0, 2, 4, 7, 9)}


def _played_tunes(random: np.random.Generator) -> Iterator[Sound]:
    """Random melodies over chords, in each timbre and scale, some with drums."""
    for (timbre, play), (scale, steps) in product(_TIMBRES.items(), _SCALES.items()):
        beat_s = random.uniform(0.2, 0.5)
        out = np.zeros(round((_SECONDS + 2) * RATE_HZ))
        root = random.uniform(160, 330)
        for number in range(int(_SECONDS / beat_s)):
            notes = [steps[random.integers(len(steps))] + 12 * int(random.integers(2))]
            notes += [steps[0], steps[2] - 12] if number % 4 == 0 else []
            t = np.arange(round(beat_s * random.choice([1, 1, 2]) * RATE_HZ)) / RATE_HZ
            first = round(number * beat_s * RATE_HZ)
            for note in notes:
                out[first : first + t.size] += play(t, root * 2 ** (note / 12))
            if scale == "five":
                hit = random.normal(size=800) * np.exp(-np.arange(800) / 150)
                out[first : first + 800] += hit
        yield Sound("hold tunes, synthesised", f"{timbre}, {scale}", out[: round(_SECONDS * RATE_HZ)])


def _coloured(random: np.random.Generator, slope: float, low_hz: float = 20, high_hz: float = 4000) -> Samples:
    """Noise whose power falls with frequency to the power of `slope`, in a band."""
    spectrum = np.fft.rfft(random.normal(size=round(_SECONDS * RATE_HZ)))
    hz = np.fft.rfftfreq(round(_SECONDS * RATE_HZ), 1 / RATE_HZ)
    spectrum *= np.where((hz >= low_hz) & (hz <= high_hz), np.maximum(hz, 1) ** (-slope / 2), 0)
    noise = np.fft.irfft(spectrum)
    return np.asarray(noise / noise.std())


def _noises(random: np.random.Generator) -> Iterator[Sound]:
    t = np.arange(round(_SECONDS * RATE_HZ)) / RATE_HZ
    for slope, name in ((-1, "blue"), (0, "white"), (1, "pink"), (2, "brown")):
        noise = _coloured(random, slope)
        yield Sound("noises", name, noise)
        yield Sound("noises", f"{name}, 300-3400 Hz", _coloured(random, slope, 300, 3400))
        yield Sound("noises", f"{name}, on and off each 150 ms", noise * _gate(t, 0.15, 0.15))
        yield Sound("noises", f"{name}, on and off each second", noise * _gate(t, 1, 1))
    for hz in (50, 60, 100, 120, 217, 400):
        weights = random.uniform(0.2, 1, 12)
        hum = sum(w * np.sin(2 * np.pi * hz * k * t + k) for k, w in enumerate(weights, 1) if hz * k < RATE_HZ / 2)
        yield Sound("noises", f"hum {hz} Hz", np.asarray(hum))
        yield Sound("noises", f"buzz {hz} Hz", _pulses(t, hz) * (1 + 0.2 * np.sin(2 * np.pi * t)))
    yield Sound("noises", "GSM buzz", _pulses(t, 217) * _gate(t, 0.4, 0.52))
    yield Sound("noises", "clicks", random.binomial(1, 0.002, t.size) * random.normal(size=t.size))
    yield Sound("noises", "siren", np.sin(2 * np.pi * np.cumsum(900 + 400 * np.sin(2 * np.pi * 0.4 * t)) / RATE_HZ))


def _gate(t: Samples, on_s: float, off_s: float) -> Samples:
    """1 while it is on, 0 while it is off."""
    return np.asarray(t % (on_s + off_s) < on_s, np.float64)


def _pulses(t: Samples, hz: float) -> Samples:
    """Short pulses, without a constant part."""
    pulses = _gate(t, 0.12 / hz, 0.88 / hz)
    return np.asarray(pulses - pulses.mean())


def _rooms(random: np.random.Generator) -> Iterator[Sound]:
    """What a microphone hears while nobody speaks."""
    kind = "typing, breath, wind, rooms"
    t = np.arange(round(_SECONDS * RATE_HZ)) / RATE_HZ
    for number in range(4):
        pace_s = random.uniform(0.12, 0.4)
        yield Sound(kind, f"typing {number}", _hits(random, pace_s, 0.006, _coloured(random, -0.5)))
        yield Sound(kind, f"steps and doors {number}", _hits(random, 0.6, 0.06, _coloured(random, 2)))
        yield Sound(kind, f"paper {number}", _hits(random, 0.25, 0.08, _coloured(random, 0)))
        swing = 0.5 - 0.5 * np.cos(2 * np.pi * t / random.uniform(1.6, 3.5))
        breath = _coloured(random, 0.5, 300, 2600)
        yield Sound(kind, f"breath {number}", breath * swing**2)
        gusts = np.interp(t, np.arange(0, _SECONDS + 1, 0.5), random.uniform(0, 1, int(_SECONDS * 2) + 2)) ** 2
        yield Sound(kind, f"wind {number}", _coloured(random, 3, 20, 1500) * gusts)
        hum = 0.3 * np.sin(2 * np.pi * 50 * t) + 0.2 * np.sin(2 * np.pi * random.uniform(90, 240) * t)
        yield Sound(kind, f"fan {number}", _coloured(random, 1.5) + hum)
        yield Sound(kind, f"dishes {number}", _ringing(random))


def _hits(random: np.random.Generator, pace_s: float, decay_s: float, noise: Samples) -> Samples:
    """Bursts of a noise at irregular times."""
    envelope, at_s = np.zeros(noise.size), random.uniform(0, pace_s)
    tail = np.exp(-np.arange(round(decay_s * 6 * RATE_HZ)) / (decay_s * RATE_HZ))
    while at_s < _SECONDS:
        first = round(at_s * RATE_HZ)
        room = envelope[first : first + tail.size]
        room += tail[: room.size] * random.uniform(0.3, 1)
        at_s += random.exponential(pace_s)
    return noise * envelope


def _ringing(random: np.random.Generator) -> Samples:
    """Struck glass and metal."""
    out = np.zeros(round((_SECONDS + 2) * RATE_HZ))
    at_s = 0.2
    while at_s < _SECONDS:
        t = np.arange(RATE_HZ) / RATE_HZ
        first = round(at_s * RATE_HZ)
        for hz in random.uniform(600, 3600, 4):
            out[first : first + t.size] += np.sin(2 * np.pi * hz * t) * np.exp(-t / random.uniform(0.02, 0.3))
        at_s += random.exponential(0.7)
    return out[: round(_SECONDS * RATE_HZ)]
