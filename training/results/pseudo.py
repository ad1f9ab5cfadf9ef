"""A model's answers as labels of an own list: pseudo-labels, and soft targets for a smaller model (distillation)."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from callmood.schemas.common import EMOTIONS
from callmood.training import checkpoint, manifest
from callmood.training.corpora import own
from callmood.training.results.predict import Row, is_manifest
from callmood.worker.errors import ConfigurationError

_COLUMNS: Final = ("id", "path", "label", "speaker", "split", "start", "end", "channel", "language", "session")
_VOTES: Final = tuple(f"votes.{emotion}" for emotion in EMOTIONS)
_JUDGED: Final = ("valid", "test")  # answers of a model are no truth to measure another one by


def write(source: Path, answers: Sequence[Row], above: float, out: Path) -> dict[str, int]:
    """Write the utterances of a list with the answers to them, all for training: the label, and probabilities as votes.

    A row without a speaker has its file as the speaker.

    Args:
        source: the list or the manifest.
        answers: of `predict.rows`, in its order.
        above: lowest confidence of an answer that is written.
        out: CSV file for `prepare own`.

    Returns:
        How many are written, and how many are left out, by reason.

    Raises:
        ConfigurationError: the list cannot be read, or nothing is left.
    """
    counts: Counter[str] = Counter()
    rows = []
    for row, answer in zip(_rows(source), answers, strict=True):
        reason = _left_out(answer, above)
        counts[reason or "written"] += 1
        if not reason:
            votes = dict(zip(_VOTES, (getattr(answer, emotion) for emotion in EMOTIONS), strict=True))
            speaker = row["speaker"] or os.path.relpath(row["path"], source.parent)
            path = row["path"].parent.resolve() / row["path"].name
            labelled = {"id": answer.id, "label": answer.predicted, "speaker": speaker, "split": "train"}
            rows.append({**row, **labelled, **votes, "path": os.path.relpath(path, out.resolve().parent)})
    if not rows:
        raise ConfigurationError(f"{source}: no answer can be used as a label: {dict(counts) or 'the list is empty'}")
    text = io.StringIO()
    table = csv.DictWriter(text, [*_COLUMNS, *_VOTES], extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    checkpoint.write_text(out, text.getvalue())
    return dict(counts)


def _rows(source: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of an own list, or of a manifest, whose audio is cut already; in the order of `predict.heard`."""
    if is_manifest(source):
        for item in manifest.read_any(source):
            kept = {name: getattr(item, name) for name in ("speaker", "language", "session")}
            yield {**kept, "path": source.parent / item.path}
        return
    for found in own.read(source, {"path"}):
        kept = {name: getattr(found, name) for name in ("path", "speaker", "language", "session")}
        cut = found.cut
        end_s = cut.end_s if cut.end_s < math.inf else ""
        yield {**kept, "start": cut.start_s, "end": end_s, "channel": cut.channel}


def _left_out(answer: Row, above: float) -> str:
    if answer.split in _JUDGED:
        return f"split {answer.split}"
    if answer.confidence is None:
        return "no answer"
    return f"confidence below {above:g}" if answer.confidence < above else ""
