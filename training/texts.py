"""Text files as people save them: with a byte-order mark, in UTF-16, with Windows' line ends."""

import codecs
import csv
from pathlib import Path
from typing import Final

from callmood.worker.errors import ConfigurationError

_FIELD_CHARACTERS: Final = 131_072


def bound_csv_fields() -> None:
    """A quotation mark that is never closed makes an error, and not a field of the rest of the file.

    The limit is one of the whole process, and other libraries raise it.
    """
    csv.field_size_limit(_FIELD_CHARACTERS)


def read(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if its first bytes say so, as those of some spreadsheets do.

    Raises:
        ConfigurationError: the file cannot be read; of bytes that are no UTF-8, the message has the line.
    """
    try:
        content = path.read_bytes()
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
