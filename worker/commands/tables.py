"""Tables as files: JSON lines, CSV or Parquet. A file gets its name only when it is complete."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from callmood.schemas.history import Kind, row
from callmood.worker.errors import ConfigurationError

Format = Literal["jsonl", "csv", "parquet"]
_ROWS: Final = 10_000
"""Rows of a Parquet row group."""
_FORMULA: Final = re.compile("[=+@\t\r\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}-]")
_TELEPHONE: Final = re.compile(r"[+-][0-9 ()/.-]*")


class Table(Protocol):
    """A file that is being written."""

    def add(self, record: Mapping[str, Any]) -> None:
        """The next row."""

    def close(self) -> None:
        """All rows are there."""


@contextmanager
def table(path: Path, written: Format, columns: Mapping[str, Kind]) -> Iterator[Table]:
    """A file with these columns; it is renamed to `path` at the end, and removed if there was an error.

    Raises:
        ConfigurationError: it cannot be written, or Parquet needs a package that is not installed.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with closing(_KINDS[written](partial, columns)) as made:
            yield made
        partial.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


class _Lines:
    """JSON lines: the records as they are."""

    def __init__(self, path: Path, _: Mapping[str, Kind]) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.close = self._file.close

    def add(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")


class _Csv:
    """CSV with a head; a value that is missing is empty."""

    def __init__(self, path: Path, columns: Mapping[str, Kind]) -> None:
        self._columns = columns
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()
        self.close = self._file.close

    def add(self, record: Mapping[str, Any]) -> None:
        self._writer.writerow({name: _inert(value) for name, value in row(record, self._columns).items()})


def _inert(value: Any) -> Any:
    """A text that a spreadsheet would compute begins with an apostrophe; a telephone number stays as it is."""
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _TELEPHONE.fullmatch(value)
    return f"'{value}" if is_formula else value


class _Parquet:
    """Parquet, compressed; a value that is missing is null."""

    def __init__(self, path: Path, columns: Mapping[str, Kind]) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415 - as above
        except ImportError as error:
            raise ConfigurationError("Parquet needs: pip install 'callmood[history]'") from error
        kinds = {"text": pa.string(), "integer": pa.int64(), "decimal": pa.float64(), "boolean": pa.bool_()}
        self._columns = columns
        self._schema = pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in columns.items()])
        self._make = pa.Table.from_pylist
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        self._rows.append(row(record, self._columns))
        if len(self._rows) == _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._make(self._rows, schema=self._schema))
            self._rows = []


_KINDS: Final[Mapping[Format, Callable[[Path, Mapping[str, Kind]], Table]]] = {
    "jsonl": _Lines,
    "csv": _Csv,
    "parquet": _Parquet,
}
