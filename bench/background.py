"""`python -m callmood.bench.background`: from which level on speech in the background is told from the speaker.

Calls of one speaker, ten of Debian's prompts of one voice, each at a level of its own within 12 dB, and after each of
them another voice, so much quieter than the speaker's mean; or, as a television, that voice without pauses through the
whole call. One channel, noise at -65 dBFS, G.711.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.bench.field import prompts
from callmood.schemas.common import Encoding, Role
from callmood.training.synthetic.arrays import Samples
from callmood.training.synthetic.sounds import RATE_HZ
from callmood.worker import g711
from callmood.worker.call import acoustics
from callmood.worker.call.background import Levels, judge
from callmood.worker.engine.check import SpeechCheck
from callmood.worker.records import Position, Result, Span, Utterance
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.segment import Segmenter

LEVELS_DB: Final = (-12, -16, -20, -24, -28, -32, -36, -40)
_SPEAKER_DBFS: Final = -22
_SPREAD_DB: Final = 6
_NOISE_DBFS: Final = -65
_TURNS: Final = 10
_CALLS: Final = 10
_PAUSE_S: Final = 4
"""Between the speaker's prompts, with a television."""
_LOUD: Final = 10 ** (-34 / 20)
"""Prompts peak far above; a television has no pauses, so what is quieter for 100 ms is cut out of it."""
_NOWHERE: Final = Position("", 0, 0)


class Turn(NamedTuple):
    """Samples from `begin` to `end` of a channel, and whether they are the background's."""

    begin: int
    end: int
    is_background: bool

    def shared(self, span: Span) -> int:
        """Samples that a span has in common with it."""
        return min(self.end, span.end_sample) - max(self.begin, span.start_sample)


class Counts(NamedTuple):
    """Utterances of the background and of the speaker, and how many of each were judged to be background."""

    background: int = 0
    background_told: int = 0
    own: int = 0
    own_lost: int = 0


def _channel(
    own: Sequence[Samples], other: Sequence[Samples], level_db: float, random: np.random.Generator
) -> tuple[Samples, list[Turn]]:
    parts, turns, at = [np.zeros(RATE_HZ)], list[Turn](), RATE_HZ
    for pair in zip(own, other, strict=True):
        for is_background, samples in enumerate(pair):
            relative_db = level_db if is_background else random.uniform(-_SPREAD_DB, _SPREAD_DB)
            gain = 10 ** ((_SPEAKER_DBFS + relative_db) / 20) / np.sqrt(np.square(samples).mean())
            parts += [samples * gain, np.zeros(RATE_HZ)]
            turns.append(Turn(at, at + len(samples), bool(is_background)))
            at += len(samples) + RATE_HZ
    channel = np.concatenate(parts)
    return channel + random.normal(0, 10 ** (_NOISE_DBFS / 20), channel.size), turns


def _utterance(span: Span) -> Utterance:
    start_ms, end_ms = (sample * 1000 // RATE_HZ for sample in (span.start_sample, span.end_sample))
    return Utterance(
        id=str(start_ms),
        call_id="call",
        stream="0",
        channel=0,
        role=Role.CUSTOMER,
        start_ms=start_ms,
        end_ms=end_ms,
        capture_end_ms=end_ms,
        encoding=Encoding.PCMU,
        rate_hz=RATE_HZ,
        audio=span.audio,
        cut=span.cut,
        missing_ms=0,
        overlap_ms=0,
        acoustics=acoustics.measure(g711.to_s16(Encoding.PCMU, span.audio), RATE_HZ),
        first=_NOWHERE,
        last=_NOWHERE,
        withheld=None,
    )


def _results(channel: Samples, check: SpeechCheck) -> Iterator[tuple[Span, Result]]:
    pcm = np.clip(np.rint(channel * 32768), -32768, 32767).astype(np.int16)
    levels: Levels = {}
    for span in Segmenter(Encoding.PCMU, RATE_HZ, SegmentSettings()).feed(0, g711.encode_pcmu(pcm)):
        utterance = _utterance(span)
        speech = check.judge((utterance.encoding, RATE_HZ, utterance.audio))
        levels, result = judge(levels, Result(utterance, None, speech))
        yield span, result


def _count(channel: Samples, turns: Sequence[Turn], check: SpeechCheck) -> Counts:
    found = Counts()
    for span, result in _results(channel, check):
        is_background = max(turns, key=lambda turn: turn.shared(span)).is_background
        one = Counts(1, int(not result.is_speech)) if is_background else Counts(0, 0, 1, int(result.is_background))
        found = Counts(*(a + b for a, b in zip(found, one, strict=True)))
    return found


def _television(
    own: Sequence[Samples], other: Sequence[Samples], level_db: float, random: np.random.Generator
) -> tuple[Samples, list[Turn]]:
    parts, turns, at = [np.zeros(RATE_HZ)], list[Turn](), RATE_HZ
    for samples in own:
        gain = 10 ** ((_SPEAKER_DBFS + random.uniform(-_SPREAD_DB, _SPREAD_DB)) / 20) / np.sqrt(
            np.square(samples).mean()
        )
        parts += [samples * gain, np.zeros(_PAUSE_S * RATE_HZ)]
        turns.append(Turn(at, at + len(samples), is_background=False))
        at += len(samples) + _PAUSE_S * RATE_HZ
    channel, voice = np.concatenate(parts), np.concatenate(other)
    pieces = voice[: voice.size // 800 * 800].reshape(-1, 800)
    spoken = pieces[np.sqrt(np.square(pieces).mean(axis=1)) > _LOUD].ravel()
    behind = (
        np.resize(spoken, channel.size) * 10 ** ((_SPEAKER_DBFS + level_db) / 20) / np.sqrt(np.square(spoken).mean())
    )
    return channel + behind + random.normal(0, 10 ** (_NOISE_DBFS / 20), channel.size), turns


def _talk_s(channel: Samples, turns: Sequence[Turn], check: SpeechCheck) -> tuple[float, float]:
    """What counts as the speaker's talk: in the speaker's turns, and outside of them."""
    own_s = all_s = 0.0
    for _, result in _results(channel, check):
        if result.is_speech:
            start, end = (ms * RATE_HZ // 1000 for ms in result.voice_ms)
            own_s += sum(max(0, min(end, turn.end) - max(start, turn.begin)) for turn in turns) / RATE_HZ
            all_s += (end - start) / RATE_HZ
    return own_s, all_s - own_s


def _calls() -> Iterator[tuple[list[Samples], list[Samples]]]:
    speakers, others = (
        [prompt.samples for prompt in prompts(voice, _CALLS * _TURNS)] for voice in ("Italian", "English")
    )
    for first in range(0, min(len(speakers), len(others)) - _TURNS + 1, _TURNS):
        yield speakers[first : first + _TURNS], others[first : first + _TURNS]


def _taking_turns(calls: Sequence[tuple[list[Samples], list[Samples]]], check: SpeechCheck) -> Table:
    table = Table("background dB", "utterances of it", "do not count", "speaker's lost", title="a voice in the pauses")
    for level_db in LEVELS_DB:
        random, total = np.random.default_rng(1), Counts()
        for own, other in calls:
            one = _count(*_channel(own, other, level_db, random), check)
            total = Counts(*(a + b for a, b in zip(total, one, strict=True)))
        share = f"{total.background_told} of {total.background}"
        table.add_row(str(level_db), str(total.background), share, f"{total.own_lost} of {total.own}")
    return table


def _never_stopping(calls: Sequence[tuple[list[Samples], list[Samples]]], check: SpeechCheck) -> Table:
    table = Table(
        "background dB", "speaker's turns, s", "counted, s", "outside of them, s", "counted, s", title="a television"
    )
    for level_db in LEVELS_DB:
        random, own_s, other_s, true_s, all_s = np.random.default_rng(1), 0.0, 0.0, 0.0, 0.0
        for own, other in calls:
            channel, turns = _television(own, other, level_db, random)
            one_s, more_s = _talk_s(channel, turns, check)
            own_s, other_s = own_s + one_s, other_s + more_s
            true_s += sum(turn.end - turn.begin for turn in turns) / RATE_HZ
            all_s += channel.size / RATE_HZ
        table.add_row(*(f"{figure:.0f}" for figure in (level_db, true_s, own_s, all_s - true_s, other_s)))
    return table


def main() -> None:
    """Print both tables."""
    calls, check = list(_calls()), SpeechCheck.open()
    for table in (_taking_turns(calls, check), _never_stopping(calls, check)):
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
