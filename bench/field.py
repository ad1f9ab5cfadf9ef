"""Measure how often the speech check takes other sounds for speech, and how much speech it loses.

More than 200 sounds that no person makes (`training.synthetic.sounds`), and 50 prompts of a human speaker for each
language that is installed (Debian: asterisk-core-sounds-en-wav, -es-, -fr-, -it-, -ru-; hold tunes:
asterisk-moh-opsound-wav), at three levels, over several lines. The worker's own segmenter cuts them into utterances.
Speech is counted in 20 ms frames that the segmenter found and that are within 40 dB of the prompt's loudest frame; the
check loses those that it does not keep.
"""

import argparse
import io
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from rich.console import Console
from rich.table import Table

from callmood.bench import engine, synthetic
from callmood.schemas.common import Encoding, Role
from callmood.training.synthetic import sounds
from callmood.training.synthetic.arrays import Samples
from callmood.training.synthetic.sounds import RATE_HZ, Sound
from callmood.worker import g711
from callmood.worker.call.refold import refold
from callmood.worker.commands.analyze import analyze
from callmood.worker.commands.recordings import Recording, Shape
from callmood.worker.engine.check import Listener, SpeechCheck, verdict
from callmood.worker.engine.infer import Engine, compute_with
from callmood.worker.engine.plan import Plan
from callmood.worker.records import Cut, Span
from callmood.worker.settings import ModelSettings, SegmentSettings, Settings
from callmood.worker.speech.segment import Segmenter

Pcm = npt.NDArray[np.int16]
Probabilities = npt.NDArray[np.float32]

PROMPTS: Final = Path("/usr/share/asterisk/sounds")
VOICES: Final = {
    "English": "en_US_f_Allison",
    "French": "fr_CA_f_June",
    "Italian": "it_IT_m_Carlo",
    "Russian": "ru_RU_f_IvrvoiceRU",
    "Spanish": "es_MX_f_Allison",
}
LEVELS_DBFS: Final = (-15, -25, -35)

_PROMPTS_EACH: Final = 50
_NOT_WORDS: Final = ("silence", "beep", "2tone", "tt-", "confbridge-join", "confbridge-leave", "is-curntly")
_LONGEST_S: Final = 20
_FLOOR_DBFS: Final = -65
_MARGIN_S: Final = 1.0
_FRAME: Final = RATE_HZ // 50
_AUDIBLE: Final = 1e-4  # 40 dB
_QUARTER, _EVEN, _SURE = 0.25, 0.5, 0.9  # of the rules that are compared


class Line(NamedTuple):
    """What a line does to samples, and the codec that the worker gets them in."""

    distort: Callable[[Pcm, np.random.Generator], Pcm]
    encoding: Encoding


def gsm(pcm: Pcm, _random: np.random.Generator) -> Pcm:
    """Through GSM full rate."""
    with io.BytesIO() as file:
        soundfile.write(file, pcm, RATE_HZ, format="WAV", subtype="GSM610")
        file.seek(0)
        decoded: Pcm = soundfile.read(file, dtype="int16")[0]
    return np.resize(decoded, pcm.size)


def lossy(pcm: Pcm, random: np.random.Generator, *, rate: float, burst: float) -> Pcm:
    """Lose packets of 20 ms, `burst` in a row on average; a gateway repeats the one before at half the level."""
    packets = pcm[: pcm.size // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    is_lost = False
    for number in range(1, len(packets)):
        is_lost = bool(random.random() < (1 - 1 / burst if is_lost else rate / burst / (1 - rate)))
        if is_lost:
            packets[number] = packets[number - 1] / 2
    return packets.reshape(-1).astype(np.int16)


LINES: Final = {
    "16 bits": Line(lambda pcm, _: pcm, Encoding.S16LE),
    "mu-law": Line(lambda pcm, _: pcm, Encoding.PCMU),
    "A-law": Line(lambda pcm, _: pcm, Encoding.PCMA),
    "GSM": Line(gsm, Encoding.S16LE),
    "mu-law, 3 % lost": Line(partial(lossy, rate=0.03, burst=1.0), Encoding.PCMU),
    "mu-law, 10 % lost in bursts of 3": Line(partial(lossy, rate=0.1, burst=3.0), Encoding.PCMU),
}


@dataclass(frozen=True)
class Heard:
    """One utterance of a sound: where it came from, what the check found, and for speech its frames of 20 ms.

    `found_ms` of speech are in the utterance, `kept_ms` of them in the part that counts; 0 for other sounds.
    """

    sound: Sound
    is_speech: bool
    level_dbfs: int
    line: str
    probabilities: Probabilities
    duration_ms: int
    counts: bool
    found_ms: int
    kept_ms: int


def prompts(voice: str, count: int = _PROMPTS_EACH) -> Iterator[Sound]:
    """Prompts of a voice, evenly from all that are installed; none if none is."""
    files = sorted(path for path in (PROMPTS / VOICES[voice]).rglob("*.wav") if _is_spoken(path))
    for path in files[:: max(1, len(files) // count)][:count]:
        samples, rate_hz = soundfile.read(path, dtype="float64")
        assert rate_hz == RATE_HZ
        if samples.size >= RATE_HZ // 10:  # some are empty
            yield Sound(voice, path.stem, samples[: _LONGEST_S * RATE_HZ])


def _is_spoken(path: Path) -> bool:
    return not any(word in str(path.relative_to(PROMPTS)) for word in _NOT_WORDS)


def hear(sound: Sound, level_dbfs: int, line: str, check: SpeechCheck, *, is_speech: bool) -> list[Heard]:
    """A sound at a level over a line: its utterances."""
    random = np.random.default_rng([level_dbfs + 100, *line.encode()])
    pcm, truth = _at_level(sound.samples, level_dbfs, random)
    encoding = LINES[line].encoding
    heard = []
    for span in _spans(LINES[line].distort(pcm, random), encoding):
        probabilities = check.probabilities((encoding, RATE_HZ, span.audio))
        duration_ms = (span.end_sample - span.start_sample) * 1000 // RATE_HZ
        found = verdict(probabilities, duration_ms)
        frames = truth[span.start_sample // _FRAME : span.end_sample // _FRAME] & is_speech
        kept = frames[found.start_ms // 20 : -(-found.end_ms // 20)] if found.is_speech else frames[:0]
        figures = (found.is_speech, 20 * int(frames.sum()), 20 * int(kept.sum()))
        heard.append(Heard(sound, is_speech, level_dbfs, line, probabilities, duration_ms, *figures))
    return heard


def _hear_everywhere(sound: Sound, is_speech: bool) -> list[Heard]:  # noqa: FBT001 - of a pool's map
    """A sound at each level over each line."""
    check = SpeechCheck.open()
    everywhere = product(LEVELS_DBFS, LINES)
    return [one for level, line in everywhere for one in hear(sound, level, line, check, is_speech=is_speech)]


def _at_level(samples: Samples, level_dbfs: int, random: np.random.Generator) -> tuple[Pcm, npt.NDArray[np.bool_]]:
    """With its loudest second at this level, between silences, in the noise of a line; and its audible frames."""
    sums = np.cumsum(np.concatenate([[0.0], samples**2]))
    window = min(RATE_HZ, samples.size)
    loudest = float((sums[window:] - sums[:-window]).max()) / window
    margin = round(_MARGIN_S * RATE_HZ)
    clean = np.zeros(margin + samples.size + margin - samples.size % _FRAME)
    clean[margin : margin + samples.size] = samples * 10 ** (level_dbfs / 20) / max(loudest, 1e-12) ** 0.5
    power = (clean.reshape(-1, _FRAME) ** 2).mean(axis=1)
    noise = random.normal(0, 10 ** (_FLOOR_DBFS / 20), clean.size)
    pcm = np.clip(np.round((clean + noise) * 32768), -32768, 32767).astype(np.int16)
    return pcm, power > power.max() * _AUDIBLE


def _spans(pcm: Pcm, encoding: Encoding) -> list[Span]:
    data = {Encoding.PCMU: g711.encode_pcmu, Encoding.PCMA: g711.encode_pcma}.get(encoding, np.ndarray.tobytes)(pcm)
    segmenter = Segmenter(encoding, RATE_HZ, SegmentSettings())
    return [*segmenter.feed(0, data), *segmenter.close(Cut.END)]


class Errors(NamedTuple):
    """What goes wrong, in per cent: of the utterances of other sounds, and of the speech that the segmenter found."""

    utterances: int
    taken_for_speech: float
    speech_s: float
    lost: float


def errors(heard: Sequence[Heard], counts: Callable[[Heard], bool] | None = None) -> Errors:
    """The errors of the check, or those of another rule that says what counts as a whole."""
    others = [one for one in heard if not one.is_speech]
    speech = [one for one in heard if one.is_speech]
    taken = sum(counts(one) if counts else one.counts for one in others)
    found_ms = sum(one.found_ms for one in speech)
    kept_ms = sum((one.found_ms if counts(one) else 0) if counts else one.kept_ms for one in speech)
    return Errors(
        len(others), 100 * taken / max(1, len(others)), found_ms / 1000, 100 * (1 - kept_ms / max(1, found_ms))
    )


def _best_mean(one: Heard, frames: int) -> float:
    window = min(frames, one.probabilities.size)
    sums = np.concatenate([[0.0], np.cumsum(one.probabilities, dtype=np.float64)])
    return float((sums[window:] - sums[:-window]).max()) / window


def _likeliest(one: Heard) -> float:
    return float(one.probabilities.max())


def _voiced(one: Heard) -> float:
    return float((one.probabilities > _EVEN).mean())


RULES: Final[Mapping[str, Callable[[Heard], bool]]] = {
    "a frame above 0.5": lambda one: _likeliest(one) > _EVEN,
    "a frame above 0.9": lambda one: _likeliest(one) > _SURE,
    "a mean of 0.3 s above 0.5": lambda one: _best_mean(one, 10) > _EVEN,
    "a mean of 1.5 s above 0.25": lambda one: _best_mean(one, 47) > _QUARTER,
    "half of all frames above 0.5": lambda one: _voiced(one) >= _EVEN,
}


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--every", type=int, default=1, help="use only every Nth sound; default: 1, all sounds")
    parser.add_argument("--processes", type=int, help="number of processes; default: one per core")
    parser.add_argument("--cost", action="store_true", help="measure only the cost, relative to the model's")
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    console = Console(width=120)
    if not options.cost:
        _print_errors(console, options.every, options.processes)
        _print_alerts(console, options.every)
    _print_cost(console)
    return 0


def _print_errors(console: Console, every: int, processes: int) -> None:
    others = list(sounds.every())[::every]
    spoken = [prompt for voice in VOICES for prompt in list(prompts(voice))[::every]]
    if not any(sounds.TUNES.glob("*.wav")):
        console.print("asterisk-moh-opsound-wav is not installed: no recorded hold tunes")
    work = [*((one, False) for one in others), *((one, True) for one in spoken)]
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        heard = [one for some in pool.starmap(_hear_everywhere, work, chunksize=4) for one in some]
    console.print(f"{len(others)} sounds, {len(spoken)} prompts, {len(LEVELS_DBFS)} levels, {len(LINES)} lines")
    kinds = {one.sound.kind: None for one in heard}
    groups = [
        *((kind, [one for one in heard if one.sound.kind == kind]) for kind in kinds),
        *((line, [one for one in heard if one.line == line]) for line in LINES),
        *((f"{level} dBFS", [one for one in heard if one.level_dbfs == level]) for level in LEVELS_DBFS),
        ("all", heard),
    ]
    console.print(_table("sounds", [(name, errors(group)) for name, group in groups]))
    console.print(_table("rule", [("the check", errors(heard)), *((n, errors(heard, r)) for n, r in RULES.items())]))
    wrong = [one for one in heard if one.counts != one.is_speech]
    for kind, name in sorted({(one.sound.kind, one.sound.name) for one in wrong}):
        mine = [one for one in heard if one.sound.kind == kind and one.sound.name == name]
        count = sum(one.counts != one.is_speech for one in mine)
        console.print(f"wrong: {kind}, {name}: {count} of {len(mine)} utterances")


def _table(first: str, rows: Sequence[tuple[str, Errors]]) -> Table:
    table = Table(first)
    for name in ("utterances", "taken for speech, %", "speech, s", "lost, %"):
        table.add_column(name, justify="right")
    for name, found in rows:
        others = (str(found.utterances), f"{found.taken_for_speech:.2f}") if found.utterances else ("", "")
        speech = (f"{found.speech_s:.0f}", f"{found.lost:.2f}") if found.speech_s else ("", "")
        table.add_row(name, *others, *speech)
    return table


def _print_alerts(console: Console, every: int) -> None:
    """One call of the customer for each kind of sound: which alerts but those on silence it raises."""
    listener, settings = Listener.open(ModelSettings(device="cpu")), Settings()
    by_kind: dict[str, list[Sound]] = {}
    for sound in list(sounds.every())[::every]:
        by_kind.setdefault(sound.kind, []).append(sound)
    for kind, all_of_it in by_kind.items():
        random = np.random.default_rng(1)
        pcm = np.concatenate([_at_level(sound.samples, -25, random)[0] for sound in all_of_it])
        blocks = partial(np.array_split, pcm[:, None], 100)
        recording = Recording(Path(kind), len(pcm), (Role.CUSTOMER,), Shape(), blocks)
        utterances, call = analyze(recording, kind, listener, settings)
        raised = sorted({alert["rule"] for alert in refold(call, utterances).alerts} - {"long_silence"})
        customer = call["roles"].get("customer", {"talk_ms": 0, "other_sound_ms": 0})
        figures = f"talk {customer['talk_ms'] / 1000:.1f} s, other sound {customer['other_sound_ms'] / 1000:.0f} s"
        console.print(f"a call of {kind}, {call['duration_ms'] / 1000:.0f} s: {figures}, alerts: {raised or 'none'}")


def _print_cost(console: Console) -> None:
    """Both on this CPU with one thread, in one run: audio per second, and the check's time for one utterance."""
    compute_with(1)
    utterances = [synthetic.speak(length, seed) for seed, length in enumerate(synthetic.lengths_s(32, 1))]
    seconds = sum(map(synthetic.duration_s, utterances))
    _, model = engine.build("base", utterances[:8])
    hubert, check = Engine(model, Plan(packed=True)), SpeechCheck.open()
    hubert.warm_up()
    took = []
    for work in (lambda: hubert.predict(utterances), lambda: [check.judge(one) for one in utterances]):
        began_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - began_s)
    console.print(
        f"HuBERT-base, packed, fp32: {seconds / took[0]:.1f} times real time; "
        f"the check: {seconds / took[1]:.0f} times; {100 * took[1] / took[0]:.1f} % of the model's time"
    )
    for length_s in (1, 3, 15):
        sound, delays_ms = synthetic.speak(length_s, 1), []
        for _ in range(20):
            began_s = time.perf_counter()
            check.judge(sound)
            delays_ms.append((time.perf_counter() - began_s) * 1000)
        median, worst = np.percentile(delays_ms, (50, 95))
        console.print(f"one utterance of {length_s} s: {median:.1f} ms, 95 of 100 within {worst:.1f} ms")


if __name__ == "__main__":
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.field")).parse_args()))
