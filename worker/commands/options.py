"""Options that several commands share."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from callmood.schemas.common import RATES_HZ, Encoding, Notice, Role
from callmood.worker.commands.recordings import Recording, Shape, load, load_legs
from callmood.worker.commands.sound_files import RAW_ENCODINGS, Raw

_spool = tempfile.TemporaryDirectory(prefix="callmood-")  # removed as the command ends


def add_recording_options(parser: argparse.ArgumentParser, *, files: str) -> None:
    """The files, and how to make audio/1 records of them. All commands have the same defaults, so results compare."""
    parser.add_argument(
        "files",
        metavar="FILE",
        type=_file,
        nargs=files,
        help="sound file of one call, in any format that ffmpeg reads; - is standard input",
    )
    parser.add_argument("--legs", action="store_true", help="each file is mono and one channel of the same call")
    parser.add_argument(
        "--raw",
        type=_raw,
        metavar="ENCODING[,HZ[,CHANNELS]]",
        help=f"for files without a header: {', '.join(RAW_ENCODINGS)}; default: by Asterisk's names (.ulaw, .sln16)",
    )
    parser.add_argument(
        "--layout",
        type=_layout,
        metavar="ROLE[,ROLE]",
        help="role of each channel; default: customer,agent for stereo, mixed for mono",
    )
    parser.add_argument(
        "--encoding",
        type=Encoding,
        choices=list(Encoding),
        default=Encoding.PCMU,
        help="encoding of the records; default: pcmu",
    )
    parser.add_argument(
        "--rate", type=int, choices=RATES_HZ, default=8000, help="sample rate of the records, Hz; default: 8000"
    )
    parser.add_argument(
        "--chunk-ms", type=whole(1, 1_000), default=200, metavar="MS", help="audio per record, ms; default: 200"
    )
    parser.add_argument(
        "--notice", type=Notice, choices=list(Notice), help="whether the caller was told that emotion is inferred"
    )
    parser.add_argument(
        "--attr",
        type=_attribute,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="attribute of the call; repeatable",
    )
    parser.add_argument("--call-id", help="id of the call; with several files, a number is appended")


def shape(arguments: argparse.Namespace) -> Shape:
    """The shape that the options ask for."""
    return Shape(
        layout=arguments.layout,
        encoding=arguments.encoding,
        rate_hz=arguments.rate,
        chunk_ms=arguments.chunk_ms,
        notice=arguments.notice,
        attributes=dict(arguments.attr),
        raw=arguments.raw,
    )


def files_of_calls(arguments: argparse.Namespace) -> list[list[Path]]:
    """The files of each call."""
    return [arguments.files] if arguments.legs else [[path] for path in arguments.files]


def read(paths: list[Path], arguments: argparse.Namespace) -> Recording:
    """The call in these files; what is odd about them goes to standard error.

    Raises:
        BadRecording: a file cannot be used.
    """
    made = load_legs(paths, shape(arguments)) if arguments.legs else load(paths[0], shape(arguments))
    for notice in made.notices:
        print(f"callmood: {made.path}: {notice}", file=sys.stderr)
    return made


def call_ids(arguments: argparse.Namespace, *, suffix: str = "") -> list[str]:
    """One id per call."""
    files = [paths[0] for paths in files_of_calls(arguments)]
    if arguments.call_id is None:
        return [
            f"{path.stem}{suffix}" if count == 0 else f"{path.stem}{suffix}-{count}" for path, count in _repeats(files)
        ]
    if len(files) == 1:
        return [arguments.call_id]
    return [f"{arguments.call_id}-{number}" for number in range(1, len(files) + 1)]


def _repeats(files: list[Path]) -> list[tuple[Path, int]]:
    stems = [path.stem for path in files]
    return [(path, stems[:index].count(path.stem)) for index, path in enumerate(files)]


def _file(text: str) -> Path:
    if text != "-":
        return Path(text)
    path = Path(_spool.name) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)  # it is read twice
    return path


def _raw(text: str) -> Raw:
    encoding, *numbers = text.split(",")
    if encoding not in RAW_ENCODINGS or len(numbers) > len(Raw._fields) - 1 or not all(map(str.isdigit, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not ENCODING[,HZ[,CHANNELS]] with {', '.join(RAW_ENCODINGS)}")
    return Raw(encoding, *map(int, numbers))


def _layout(text: str) -> tuple[Role, ...]:
    try:
        return tuple(Role(word.strip()) for word in text.split(","))
    except ValueError:
        roles = ", ".join(role.value for role in Role)
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of roles: {roles}") from None


def _attribute(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def whole(least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number of an option."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return read
