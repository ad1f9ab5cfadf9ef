"""A confusion matrix whose cells list their utterances: one HTML page without scripts and without audio."""

import html as markup
from collections.abc import Sequence
from typing import Final

from callmood.schemas.common import EMOTIONS
from callmood.training.results.predict import Row
from callmood.training.results.report import page, table
from callmood.worker.errors import ConfigurationError

_LISTED: Final = 500  # utterances of a cell, those of highest confidence
_COLUMNS: Final = ("id", "speaker", "split", "start_s", "end_s", "confidence", "abstained", *EMOTIONS)


def html(title: str, rows: Sequence[Row]) -> str:
    """The page of a table by `predict.rows`: wrong labels of high confidence come first in each cell.

    Raises:
        ConfigurationError: no utterance has a label and an answer.
    """
    cells: dict[tuple[str, str], list[Row]] = {(true, given): [] for true in EMOTIONS for given in EMOTIONS}
    for row in rows:
        if row.predicted is not None and row.label in EMOTIONS:
            cells[row.label, row.predicted].append(row)
    if not any(cells.values()):
        raise ConfigurationError("a confusion browser needs utterances with labels")
    return page(title, "\n".join([f"<h1>{markup.escape(title)}</h1>", _matrix(cells), *map(_cell, cells.items())]))


def _matrix(cells: dict[tuple[str, str], list[Row]]) -> str:
    header = "".join(f"<th>{emotion}</th>" for emotion in ("true \\ predicted", *EMOTIONS))
    lines = [
        f"<tr><th>{true}</th>"
        + "".join(f'<td><a href="#{true}-{given}">{len(cells[true, given])}</a></td>' for given in EMOTIONS)
        + "</tr>"
        for true in EMOTIONS
    ]
    return "<table>\n" + "\n".join([f"<tr>{header}</tr>", *lines]) + "\n</table>"


def _cell(cell: tuple[tuple[str, str], list[Row]]) -> str:
    (true, given), rows = cell
    first = sorted(rows, key=lambda row: -(row.confidence or 0.0))[:_LISTED]
    heading = f'<h2 id="{true}-{given}">{true}, predicted {given}: {len(rows)}</h2>'
    listed = table(_COLUMNS, [[getattr(row, name) for name in _COLUMNS] for row in first]) if first else ""
    more = f"<p>{len(rows) - _LISTED} more are not listed.</p>" if len(rows) > _LISTED else ""
    return heading + listed + more
