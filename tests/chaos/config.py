"""The configuration of one chaos run: the runner writes it once, and all programs of the run read it."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from callmood.redis_address import Address

Mode = Literal["redis", "kafka", "both"]
ENOUGH = "enough"  # the file of a run that lets its load end
ODD = "odd.json"  # of a run: places of the hostile producer's records on the audio topic
KINDS = ("audio", "dead_letter", "utterance", "call", "alert", "state")


@dataclass(frozen=True)
class Run:
    """One chaos run. `prefix` begins the keys in Redis, and the names of the topics and of the group.

    It has at least so many `calls`; more on a machine that is slow to kill.
    """

    mode: Mode
    seed: int
    calls: int
    concurrency: int
    chunk_ms: int
    partitions: int
    idle_s: int
    prefix: str
    bootstrap_servers: str
    sentinels: tuple[str, ...]
    master: str
    folder: str

    def topic(self, kind: str) -> str:
        """Name of a topic, by its kind in the settings."""
        return f"{self.prefix}-{kind}"

    @property
    def redis(self) -> Address:
        """Where the results are."""
        return Address("redis://ignored", tuple(self.sentinels), self.master)

    @property
    def group(self) -> str:
        """Consumer group of the workers."""
        return self.prefix

    def file(self, name: str) -> Path:
        """A file of this run."""
        return Path(self.folder) / name

    def sent(self) -> int | None:
        """Number of calls, once the last has ended."""
        notes = map(json.loads, self.file("journal.jsonl").read_text().splitlines())
        return next((note["calls"] for note in notes if "calls" in note), None)

    def save(self) -> Path:
        """Write it into its folder."""
        path = self.file("run.json")
        path.write_text(json.dumps(asdict(self), indent=1))
        return path

    @classmethod
    def load(cls, path: str) -> Self:
        """Read it back."""
        return cls(**json.loads(Path(path).read_text()))


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments of a program that belongs to a run: `run` is the one that `--run FILE` names."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--run", type=Run.load, required=True, help="run.json of a chaos run")
    return arguments
