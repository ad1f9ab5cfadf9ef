"""`python -m callmood.bench.echo`: from which level on the echo of one speaker is told from the other one's speech.

Calls of two human speakers, Debian's prompts (asterisk-core-sounds-en-wav as the agent, -it-wav as the customer), over
a line with noise at -60 dBFS. The agent's voice is also on the customer's channel: lower, up to 750 ms later, through
G.711. The customer speaks after the agent, or at the same time.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.bench.field import prompts
from callmood.schemas.common import Encoding, Event, Role
from callmood.training.synthetic.arrays import Samples
from callmood.training.synthetic.sounds import RATE_HZ
from callmood.worker import g711
from callmood.worker.records import AudioFormat, Chunk, Cut, Position
from callmood.worker.settings import InputSettings, SegmentSettings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.taken import ClosedSpan

LEVELS_DB: Final = (None, -6, -12, -20, -30, -36, -40)
_SPEECH_DBFS: Final = -22
_NOISE_DBFS: Final = -60
_CALLS: Final = 50
_LONGEST_LAG_S: Final = 0.75
_BORDER_S: Final = 0.3
_AUDIO: Final = AudioFormat(Encoding.PCMU, RATE_HZ, (Role.CUSTOMER, Role.AGENT))


class Counts(NamedTuple):
    """Utterances of the customer's channel: of echo alone, of at least 1 s of it, and with the customer's own voice."""

    echoes: int = 0
    echoes_found: int = 0
    long_echoes: int = 0
    long_echoes_found: int = 0
    own: int = 0
    own_lost: int = 0


def _noise(count: int, random: np.random.Generator) -> Samples:
    return random.normal(0, 10 ** (_NOISE_DBFS / 20), count)


def _at_level(samples: Samples) -> Samples:
    gain = 10 ** (_SPEECH_DBFS / 20) / float(np.sqrt(np.square(samples).mean()))
    return samples * gain


def _spans(channels: Samples) -> list[ClosedSpan]:
    pcm = np.clip(np.rint(channels * 32768), -32768, 32767).astype(np.int16)
    audio, stream = (
        g711.encode_pcmu(np.ascontiguousarray(pcm).reshape(-1)),
        Stream(MediaTime(0), SegmentSettings(), InputSettings()),
    )
    step, spans = RATE_HZ // 5 * 2, list[ClosedSpan]()
    for seq, first in enumerate(range(0, len(audio), step)):
        chunk = Chunk("call", "0", seq, Event.MEDIA, Position("audio", 0, seq), 1 + seq * 200, seq * 200.0, _AUDIO)
        chunk.audio = audio[first : first + step]
        spans += stream.push(chunk)[0].spans
    return [*spans, *stream.close(Cut.END).spans]


def _count(
    agent: Samples, customer: Samples, level_db: float | None, at_s: float, random: np.random.Generator
) -> Counts:
    """One call; the customer begins at `at_s` after the agent."""
    lag, begin = int(random.uniform(0, _LONGEST_LAG_S) * RATE_HZ), RATE_HZ
    own_begin = begin + int(at_s * RATE_HZ)
    length = max(begin + len(agent), own_begin + len(customer)) + 2 * RATE_HZ
    channels = np.stack([_noise(length, random), _noise(length, random)], axis=1)
    channels[begin : begin + len(agent), 1] += agent
    if level_db is not None:
        channels[begin + lag : begin + lag + len(agent), 0] += agent * 10 ** (level_db / 20)
    channels[own_begin : own_begin + len(customer), 0] += customer
    counts = Counts()
    for closed in _spans(channels):
        if closed.channel:
            continue
        span, border = closed.span, int(_BORDER_S * RATE_HZ)
        voiced = span.voiced_end_sample - span.voiced_start_sample
        is_own = max(span.voiced_start_sample + border, own_begin) < min(
            span.voiced_end_sample, own_begin + len(customer)
        )
        one = Counts(own=1, own_lost=closed.is_echo) if is_own else Counts(1, closed.is_echo)
        if not is_own and voiced >= RATE_HZ:
            one = one._replace(long_echoes=1, long_echoes_found=closed.is_echo)
        counts = Counts(*(int(a + b) for a, b in zip(counts, one, strict=True)))
    return counts


def _calls() -> Iterator[tuple[Samples, Samples]]:
    agents, customers = prompts("English", _CALLS), prompts("Italian", _CALLS)
    for agent, customer in islice(zip(agents, customers, strict=False), _CALLS):
        yield _at_level(agent.samples), _at_level(customer.samples)


def main() -> None:
    """Print the table."""
    table = Table("echo dB", "customer", "echoes found", "of 1 s and more", "own speech lost", title="echo")
    calls = list(_calls())
    for level_db in LEVELS_DB:
        for name in ("after", "at once"):
            random, total = np.random.default_rng(1), Counts()
            for agent, customer in calls:
                at_s = len(agent) / RATE_HZ + 1 if name == "after" else random.uniform(-0.5, 0.5)
                one = _count(agent, customer, level_db, at_s, random)
                total = Counts(*(a + b for a, b in zip(total, one, strict=True)))
            table.add_row(
                "none" if level_db is None else str(level_db),
                name,
                f"{total.echoes_found} of {total.echoes}",
                f"{total.long_echoes_found} of {total.long_echoes}",
                f"{total.own_lost} of {total.own}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
