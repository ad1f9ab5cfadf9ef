"""The list of utterances that everything else reads: one JSON object a line, paths relative to the file."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from schemas.common import Emotion
from worker.errors import ConfigurationError

SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One labelled utterance; `speaker` is the person (or the synthetic voice), whatever they speak."""

    id: str
    path: str
    corpus: str
    speaker: str
    language: str
    label: Emotion
    split: str
    seconds: float


def refuse_shared_speakers(items: Iterable[Item]) -> None:
    """Check that no speaker is in two splits.

    Raises:
        ConfigurationError: one is; the message names the speaker and the splits.
    """
    splits: dict[tuple[str, str], str] = {}
    for item in items:
        known = splits.setdefault((item.corpus, item.speaker), item.split)
        if known != item.split:
            raise ConfigurationError(f"speaker {item.speaker} of {item.corpus} is in {known} and in {item.split}")


def write(path: Path, items: Iterable[Item]) -> None:
    """Write a manifest."""
    path.write_text("".join(json.dumps(dataclasses.asdict(item)) + "\n" for item in items), encoding="utf-8")


def read(path: Path) -> list[Item]:
    """Read a manifest and refuse one that cannot be trusted.

    Raises:
        ConfigurationError: the file is missing, a line is no item, a split is unknown or empty, or two share a speaker.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigurationError(f"no manifest at {path}") from error
    items = [_item(path, number, line) for number, line in enumerate(lines, start=1)]
    missing = set(SPLITS) - {item.split for item in items}
    if missing:
        raise ConfigurationError(f"{path}: no items for {', '.join(sorted(missing))}")
    refuse_shared_speakers(items)
    return items


def _item(path: Path, number: int, line: str) -> Item:
    try:
        fields = json.loads(line)
        item = Item(**{**fields, "label": Emotion(fields["label"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path}, line {number}: {error}") from error
    if item.split not in SPLITS:
        raise ConfigurationError(f"{path}, line {number}: split {item.split!r}")
    return item
