"""`python -m callmood.bench.loss`: the figures of a call whose packets are lost, beside those of the same call without.

A call of a minute: Debian's Italian prompts are the customer, the English ones the agent; they take turns, over noise
at -62 dBFS, in G.711, one record for each 20 ms. Records are lost by the model of Gilbert and Elliott, with ten seeds.
"""

import argparse
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.bench.field import prompts
from callmood.training.loop.augment import lost_packets
from callmood.training.synthetic.arrays import Samples
from callmood.training.synthetic.sounds import RATE_HZ
from callmood.worker import g711
from callmood.worker.call.render import Stamps
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position, Record
from callmood.worker.settings import InputSettings, ModelSettings, PolicySettings, Settings
from callmood.worker.stream_time import StreamTime

RATES: Final = (0.01, 0.03, 0.05, 0.1)
BURSTS: Final = (1, 2, 5, 10)
_SECONDS: Final = 60
_RECORD: Final = RATE_HZ // 50
_NOISE_DBFS: Final = -62
_SPEECH_DBFS: Final = -22
_BEGAN_MS: Final = 1_700_000_000_000
_SEEDS: Final = 10


class Figures(NamedTuple):
    """Talk of each role and of both, and silence, in ms."""

    customer: float
    agent: float
    talk: float
    silence: float


def dialogue() -> Samples:
    """The call, float [samples, 2]: the customer and the agent."""
    random = np.random.default_rng(7)
    channels = random.normal(0, 10 ** (_NOISE_DBFS / 20), (_SECONDS * RATE_HZ, 2))
    at = round(0.8 * RATE_HZ)
    for pair in zip(prompts("Italian", _SECONDS), prompts("English", _SECONDS), strict=False):
        for channel, prompt in enumerate(pair):
            if at + prompt.samples.size > len(channels):
                return channels
            gain = 10 ** (_SPEECH_DBFS / 20) / np.sqrt(np.square(prompt.samples).mean())
            channels[at : at + prompt.samples.size, channel] += prompt.samples * gain
            at += prompt.samples.size + round(random.uniform(0.3, 1.5) * RATE_HZ)
    return channels


def records(channels: Samples) -> list[Record]:
    """The call as its gateway sends it; the last one is the `end`."""
    audio = g711.encode_pcmu(np.clip(np.rint(channels * 32768), -32768, 32767).astype(np.int16).reshape(-1))
    step = 2 * _RECORD
    values = [audio[first : first + step] for first in range(0, len(audio), step)]
    media = {"encoding": "pcmu", "rate": str(RATE_HZ), "layout": "customer,agent"}
    return [_record(number, value, media) for number, value in enumerate(values)] + [
        _record(len(values), b"", {"event": "end"})
    ]


def _record(number: int, value: bytes, more: dict[str, str]) -> Record:
    headers = {"schema": "callmood.audio/1", "seq": str(number), "media_ms": str(20 * number), **more}
    named = tuple((name, text.encode()) for name, text in headers.items())
    return Record(Position("audio", 0, number), b"call", value, named, _BEGAN_MS + 20 * number)


def figures(sent: Sequence[Record], lost: Collection[int], configured: Settings) -> Figures:
    """What the worker computes of the records without the lost ones."""
    read = partial(decode.decode, input_format="headers", max_record_ms=configured.input.max_record_ms)
    partition = Partition(TopicPartition("audio", 0), Restored(0, StreamTime(), {}), read, configured, ())
    for _ in partition.take((record for number, record in enumerate(sent) if number not in lost), 0.0):
        raise AssertionError("the model is not asked")
    (update,) = partition.collect(Stamps({}, None), 0.0).calls
    call: Any = update.summary
    customer, agent = (call["roles"][role]["talk_ms"] for role in ("customer", "agent"))
    return Figures(customer, agent, call["talk_ms"], call["non_talk_ms"])


def losses(count: int, rate: float, burst: float) -> Iterator[set[int]]:
    """The lost records of each seed; the `end` is not among them."""
    for seed in range(_SEEDS):
        yield set(np.flatnonzero(lost_packets(count, rate, burst, np.random.default_rng(seed))).tolist())


def settings_of(conceal_ms: int) -> Settings:
    """Settings with which the model is not asked."""
    return Settings(
        input=InputSettings(conceal_ms=conceal_ms),
        model=ModelSettings(speech_check=False),
        policy=PolicySettings(emotion_roles=()),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--conceal-ms", type=int, default=InputSettings().conceal_ms, help="longest loss that is filled"
    )
    configured = settings_of(parser.parse_args().conceal_ms)
    sent = records(dialogue())
    whole = np.array(figures(sent, (), configured))
    table = Table("lost", "in a row", *Figures._fields, title="error in %: mean (largest) over the seeds")
    for burst in BURSTS:
        for rate in RATES:
            found = [figures(sent, lost, configured) for lost in losses(len(sent) - 1, rate, burst)]
            errors = 100 * (np.array(found) / whole - 1)
            cells = [f"{one.mean():+.1f} ({one[np.abs(one).argmax()]:+.1f})" for one in errors.T]
            table.add_row(f"{rate:.0%}", str(burst), *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
