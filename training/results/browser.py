"""A confusion matrix whose cells list their utterances: one HTML page without scripts; audio only if asked for."""

import base64
import html as markup
import io
import wave
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from callmood.schemas.common import EMOTIONS
from callmood.training import wav
from callmood.training.loop.data import Clip
from callmood.training.results.predict import Heard, Row
from callmood.training.results.report import page, table
from callmood.worker.errors import ConfigurationError

_LISTED: Final = 500  # utterances of a cell, those of highest confidence
_COLUMNS: Final = ("id", "speaker", "split", "start_s", "end_s", "confidence", "abstained", *EMOTIONS)


Sounds = Mapping[Row, Clip]


def html(title: str, rows: Sequence[Row], sounds: Sounds | None = None) -> str:
    """The page of a table by `predict.rows`: wrong labels of high confidence come first in each cell.

    Args:
        title: its heading.
        rows: the table.
        sounds: audio to put into the page.

    Raises:
        ConfigurationError: no utterance has a label and an answer.
    """
    cells = _cells(rows)
    heading = f"<h1>{markup.escape(title)}</h1>"
    return page(title, "\n".join([heading, _matrix(cells), *(_cell(cell, sounds or {}) for cell in cells.items())]))


def sounds_of_errors(rows: Sequence[Row], utterances: Iterable[Heard]) -> dict[Row, Clip]:
    """Audio of the utterances that are listed with a wrong label; `utterances` are those of the rows, in order."""
    listed = {row for (true, given), own in _cells(rows).items() for row in _first(own) if true != given}
    return {row: one.clip for row, one in zip(rows, utterances, strict=True) if row in listed and one.clip is not None}


def _cells(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    cells: dict[tuple[str, str], list[Row]] = {(true, given): [] for true in EMOTIONS for given in EMOTIONS}
    for row in rows:
        if row.predicted is not None and row.label in EMOTIONS:
            cells[row.label, row.predicted].append(row)
    if not any(cells.values()):
        raise ConfigurationError("a confusion browser needs utterances with labels")
    return cells


def _matrix(cells: dict[tuple[str, str], list[Row]]) -> str:
    header = "".join(f"<th>{emotion}</th>" for emotion in ("true \\ predicted", *EMOTIONS))
    lines = [
        f"<tr><th>{true}</th>"
        + "".join(f'<td><a href="#{true}-{given}">{len(cells[true, given])}</a></td>' for given in EMOTIONS)
        + "</tr>"
        for true in EMOTIONS
    ]
    return "<table>\n" + "\n".join([f"<tr>{header}</tr>", *lines]) + "\n</table>"


def _cell(cell: tuple[tuple[str, str], list[Row]], sounds: Sounds) -> str:
    (true, given), rows = cell
    first = _first(rows)
    heading = f'<h2 id="{true}-{given}">{true}, predicted {given}: {len(rows)}</h2>'
    listed = table(_COLUMNS, [[getattr(row, name) for name in _COLUMNS] for row in first]) if first else ""
    more = f"<p>{len(rows) - _LISTED} more are not listed.</p>" if len(rows) > _LISTED else ""
    players = "".join(f"<p>{markup.escape(row.id)} {_player(sounds[row])}</p>" for row in first if row in sounds)
    return heading + listed + more + players


def _first(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -(row.confidence or 0.0))[:_LISTED]


def _player(clip: Clip) -> str:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((1, wav.SAMPLE_BYTES, clip.rate_hz, 0, "NONE", ""))
        file.writeframes(clip.audio)
    sound = base64.b64encode(written.getvalue()).decode()
    return f'<audio controls src="data:audio/wav;base64,{sound}"></audio>'
