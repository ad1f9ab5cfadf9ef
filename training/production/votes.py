"""Labels of several annotators as one list: the majority's label, and votes for soft labels."""

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from callmood.training.checkpoint import write_text
from callmood.training.corpora import own
from callmood.worker.errors import ConfigurationError

_VOTES: Final = "votes."
_TWO: Final = 2
_JUDGED: Final = ("valid", "test")  # splits on which figures are computed


def join(lists: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join lists of the same utterances, one of each annotator; an empty label is no vote.

    Where two labels have equally many votes, the first list's is taken for training; in `valid` and `test` the
    utterance is left out.

    Returns:
        How many utterances there are, how many are labelled, on how many all agree, how many are ties and left out, and
        for two annotators Cohen's kappa.

    Raises:
        ConfigurationError: a list cannot be read, has no ids, or has other utterances than the first; or a label is a
            misspelt emotion.
    """
    _refuse_annotators_list(out)
    by_list = [_labels(path) for path in lists]
    base = {str(row["id"]): row for _, row in own.rows(lists[0])}
    for path, labels in zip(lists, by_list, strict=True):
        if unknown := labels.keys() - base.keys():
            raise ConfigurationError(f"{path}: {min(unknown)} is not in {lists[0]}")
    votes = {name: [labels[name] for labels in by_list if labels.get(name)] for name in base}
    rows = [_row(base[name], given, lists[0].parent, out.parent) for name, given in votes.items() if given]
    kept = [row for row in rows if row["label"]]
    _write(kept, out)
    return {
        "utterances": len(base),
        "labelled": len(rows),
        "unanimous": sum(len(set(given)) == 1 for given in votes.values() if given),
        "ties": sum(_is_tie(given) for given in votes.values()),
        "left_out": len(rows) - len(kept),
        "kappa": _kappa([(a, b) for a, b in (g for g in votes.values() if len(g) == _TWO)])
        if len(lists) == _TWO
        else None,
    }


def _refuse_annotators_list(out: Path) -> None:
    """Without OUT on the command line, the last annotator's list takes its place: only a joined list has votes."""
    if out.exists() and not any(name.startswith(_VOTES) for _, row in own.rows(out) for name in row):
        raise ConfigurationError(
            f"{out} exists and is not a joined list: give a new file to write as the last argument"
        )


def _labels(path: Path) -> dict[str, str]:
    found = {}
    for number, row in own.rows(path):
        try:
            label = own.label_of(str(row.get("label") or ""))
            found[str(row["id"])] = str(own.CORPUS.labels.get(label, label))
        except (KeyError, ConfigurationError) as error:
            raise ConfigurationError(f"{path}, row {number}: {error}") from error
    return found


def _row(row: Mapping[str, Any], given: Sequence[str], source: Path, target: Path) -> dict[str, Any]:
    """A row of the joined list; its label is empty if it is to be left out."""
    is_left_out = _is_tie(given) and row.get("split") in _JUDGED
    return {
        **row,
        "path": os.path.relpath(source / row["path"], target),
        "label": "" if is_left_out else Counter(given).most_common(1)[0][0],  # among equals, the first one
        **{f"{_VOTES}{label}": count for label, count in Counter(given).items()},
    }


def _is_tie(given: Sequence[str]) -> bool:
    counts = [count for _, count in Counter(given).most_common(_TWO)]
    return len(counts) == _TWO and counts[0] == counts[1]


def _kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa: agreement beyond chance; None where chance alone agrees."""
    if not pairs:
        return None
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    first, second = (Counter(pair[i] for pair in pairs) for i in range(_TWO))
    by_chance = sum(first[label] * second[label] for label in first) / len(pairs) ** 2
    return round((agreed - by_chance) / (1 - by_chance), 4) if by_chance < 1 else None


def _write(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    write_text(out, text.getvalue())
