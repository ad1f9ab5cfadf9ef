"""Labels of several annotators as one list: the majority's label, and votes for soft labels."""

import contextlib
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
_TIMES: Final = ("start", "end")
_MARKS: Final = ("split", "speaker", "session", *_TIMES, "channel", "gender", "style", "language")
_Rows = Mapping[str, dict[str, Any]]


def join(lists: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join lists of the same utterances, one of each annotator; an empty label is no vote.

    Where two labels have equally many votes, the first list's is taken for training; in `valid` and `test` the
    utterance is left out.

    Returns:
        How many utterances there are, how many are labelled, on how many all agree, how many are ties and left out, and
        for two annotators Cohen's kappa.

    Raises:
        ConfigurationError: a list cannot be read, has no ids or one twice, has votes already, or has other utterances,
            splits, speakers, times or channels than an earlier one; a label is a misspelt emotion; or `out` is one of
            the lists.
    """
    _refuse_annotators_list(out)
    by_list = [_read(path) for path in lists]
    base = by_list[0]
    for path, others in zip(lists, by_list, strict=True):
        _join_marks(path, others, lists[0], base)
    labels = [{name: row["label"] for name, row in one.items()} for one in by_list]
    votes = {name: [given[name] for given in labels if given.get(name)] for name in base}
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


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by id, with the label by its name among ours, and the split by one of its names."""
    found: dict[str, dict[str, Any]] = {}
    for number, row in own.rows(path):
        try:
            name = str(row["id"])
            _refuse_votes(row)
            label = own.label_of(str(row.get("label") or ""))
            read = {**row, "path": row["path"], "label": str(own.CORPUS.labels.get(label, label))}
            if row.get("split") is not None:
                read["split"] = own.split_of(str(row["split"]))
        except (KeyError, ConfigurationError) as error:
            why = f"no {error.args[0]}" if isinstance(error, KeyError) else error
            raise ConfigurationError(f"{path}, row {number}: {why}") from error
        if name in found:
            raise ConfigurationError(f"{path}, row {number}: {name} is in an earlier row, too")
        found[name] = read
    return found


def _refuse_votes(row: Mapping[str, Any]) -> None:
    if any(key.startswith(_VOTES) and value not in (None, "") for key, value in row.items()):
        raise ConfigurationError("has votes already: give the list of each annotator, not a joined one")


def _join_marks(path: Path, rows: _Rows, first: Path, base: _Rows) -> None:
    """Add marks that the first list lacks; refuse marks that differ from its own, and utterances that it lacks."""
    for name, row in rows.items():
        if name not in base:
            raise ConfigurationError(f"{path}: {name} is not in {first}")
        for mark in (mark for mark in _MARKS if row.get(mark) is not None):
            if base[name].get(mark) is None:
                base[name][mark] = row[mark]
            given, known = (_comparable(mark, one[mark]) for one in (row, base[name]))
            if given != known:
                raise ConfigurationError(f"{path}: {mark} of {name} is {given!r}, and {known!r} in an earlier list")


def _comparable(mark: str, value: Any) -> str:
    """A time as a number has one form; another value is its text."""
    with contextlib.suppress(ValueError):
        return str(float(value)) if mark in _TIMES else str(value)
    return str(value)


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
