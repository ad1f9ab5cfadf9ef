"""Answers of a model to each utterance of a list, as a table that pandas, DuckDB or a spreadsheet reads."""

import csv
import dataclasses
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from callmood.schemas.common import EMOTIONS
from callmood.training import checkpoint, manifest, texts
from callmood.training.corpora import own, sound
from callmood.training.evaluate import refuse_not_finite, softmax
from callmood.training.loop.data import Clip, read_clip, refuse_short
from callmood.training.loop.train import predict
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.model import EmotionModel

_TOGETHER: Final = 256  # utterances in memory at a time
_DIGITS: Final = 6
_UNLABELLED: Final = 0  # a clip has a label; of these, nobody asks


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """An utterance of a list, and its audio; or, in `error`, why there is none."""

    id: str
    corpus: str
    speaker: str
    split: str
    label: str
    start_s: float
    clip: Clip | None
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        id: of the utterance, with its corpus and speaker.
        split: of the manifest or the list, or empty.
        label: of the manifest or the list, or empty.
        start_s: in the recording that the utterance was cut from; and `end_s`.
        predicted: the most probable emotion, also where the model abstains; None with an `error`.
        confidence: its calibrated probability.
        abstained: whether the confidence is below the model's threshold.
        anger: calibrated probability, as of the other emotions.
        model: digest of the model.
        error: why there is no answer, or empty.
    """

    id: str
    corpus: str
    speaker: str
    split: str
    label: str
    start_s: float
    end_s: float | None
    predicted: str | None
    confidence: float | None
    abstained: bool | None
    anger: float | None
    happiness: float | None
    neutral: float | None
    sadness: float | None
    model: str
    error: str


COLUMNS: Final = tuple(field.name for field in dataclasses.fields(Row))


def rows(model: EmotionModel, utterances: Iterable[Heard], *, batch_size: int) -> Iterator[Row]:
    """The answers in the order of the utterances.

    Raises:
        ConfigurationError: the model answers with numbers that are not finite.
    """
    rest = iter(utterances)
    while some := [_refused(one, model.min_samples) for one in itertools.islice(rest, _TOGETHER)]:
        logits, _ = predict(model, [one.clip for one in some if one.clip is not None], batch_size=batch_size)
        refuse_not_finite(logits)
        answers = iter(softmax(logits, model.calibration.temperature).tolist())
        for one in some:
            yield _row(one, model, next(answers) if one.clip is not None else None)


def heard(source: Path) -> Iterator[Heard]:
    """Every utterance of a manifest, or of an own list, which needs no label and no speaker here.

    Raises:
        ConfigurationError: the file cannot be read, or a row has something unknown.
    """
    if is_manifest(source):
        folder = source.resolve().parent
        for item in manifest.read_any(source):
            clip, error = _tried(read_clip, folder, item)
            yield Heard(item.id, item.corpus, item.speaker, item.split, str(item.label), item.start, clip, error)
        return
    for found in own.read(source, {"path"}):
        clip, error = _tried(_cut, found)
        label = str(own.CORPUS.labels.get(found.label, found.label))
        yield Heard(found.id, "own", found.speaker, found.split, label, found.cut.start_s, clip, error)


def write(table: Sequence[Row], path: Path) -> None:
    """Write the table as the file's ending says.

    Raises:
        ConfigurationError: see `writer_of`.
        OSError: the file cannot be written.
    """
    writer_of(path)(table, path)


def writer_of(path: Path) -> Any:
    """The function that writes a table to this path.

    Raises:
        ConfigurationError: the ending is unknown, or pyarrow is missing.
    """
    writers = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    ending = path.suffix.lower()
    if ending not in writers:
        raise ConfigurationError(f"{path}: unknown ending {path.suffix!r}: use {', '.join(writers)}")
    if ending == ".parquet":
        _pyarrow()
    return writers[ending]


def counted(table: Sequence[Row]) -> dict[str, Any]:
    """Counts of a table: answers, abstentions, errors by reason, and how many of the labelled are right."""
    answered = [row for row in table if not row.error]
    labelled = [row for row in answered if row.label in EMOTIONS]
    return {
        "utterances": len(table),
        "answered": len(answered),
        "abstained": sum(bool(row.abstained) for row in answered),
        "labelled": len(labelled),
        "right": sum(row.label == row.predicted for row in labelled),
        "errors": dict(Counter(row.error for row in table if row.error)),
    }


def is_manifest(source: Path) -> bool:
    """A manifest's first line is an object with the name of its corpus."""
    try:
        first = json.loads(next((line for line in texts.read(source).split("\n") if line.strip()), "{}"))
    except (ConfigurationError, ValueError, RecursionError):
        return False  # the reader of lists says what is wrong
    return isinstance(first, dict) and "corpus" in first


def _tried(read: Any, *arguments: Any) -> tuple[Clip | None, str]:
    try:
        return read(*arguments), ""
    except (sound.DroppedError, ConfigurationError) as error:
        return None, str(error)


def _cut(found: Any) -> Clip:
    samples, rate_hz = sound.pcm(found.path, found.cut)
    return Clip(rate_hz, samples.tobytes(), _UNLABELLED, name=found.id)


def _refused(one: Heard, min_samples: int) -> Heard:
    """The utterance, without its audio if that is too short for the model."""
    if one.clip is None:
        return one
    _, error = _tried(refuse_short, [one.clip], min_samples)
    return dataclasses.replace(one, clip=None, error=error) if error else one


def _row(one: Heard, model: EmotionModel, probabilities: Sequence[float] | None) -> Row:
    common = {name: getattr(one, name) for name in ("id", "corpus", "speaker", "split", "label", "error")}
    answer: dict[str, Any] = dict.fromkeys(("end_s", "predicted", "confidence", "abstained", *EMOTIONS))
    if probabilities is not None and one.clip is not None:
        best = max(probabilities)
        answer = {emotion: round(value, _DIGITS) for emotion, value in zip(EMOTIONS, probabilities, strict=True)}
        answer |= {
            "end_s": round(one.start_s + one.clip.seconds, _DIGITS),
            "predicted": str(EMOTIONS[probabilities.index(best)]),
            "confidence": round(best, _DIGITS),
            "abstained": best < model.calibration.abstain_below,
        }
    return Row(**common, start_s=one.start_s, model=model.info.digest, **answer)


def _write_csv(table: Sequence[Row], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in table)
    checkpoint.write_text(path, text.getvalue())


def _write_jsonl(table: Sequence[Row], path: Path) -> None:
    checkpoint.write_text(path, "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in table))


def _write_parquet(table: Sequence[Row], path: Path) -> None:
    pa, parquet = _pyarrow()
    kinds = {
        "abstained": pa.bool_(),
        **dict.fromkeys(("start_s", "end_s", "confidence", *EMOTIONS), pa.float64()),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    made = pa.Table.from_pylist([dataclasses.asdict(row) for row in table], schema=schema)
    checkpoint.write(path, lambda file: parquet.write_table(made, file))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
        from pyarrow import parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'callmood[train]'; or write .csv or .jsonl"
        ) from error
    return pa, parquet
