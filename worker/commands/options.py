"""Options that several commands share."""

import argparse
from pathlib import Path

from callmood.schemas.common import RATES_HZ, Encoding, Notice, Role
from callmood.worker.commands.recordings import Shape


def add_recording_options(parser: argparse.ArgumentParser, *, files: str) -> None:
    """The files, and how to make audio/1 records of them. All commands have the same defaults, so results compare."""
    parser.add_argument(
        "files", metavar="FILE", type=Path, nargs=files, help="sound file of one call (WAV, FLAC, Ogg …)"
    )
    parser.add_argument(
        "--layout",
        type=_layout,
        metavar="ROLE[,ROLE]",
        help="role of each channel; default: customer,agent for stereo, customer for mono",
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
        "--chunk-ms", type=_chunk_ms, default=200, metavar="MS", help="audio per record, ms, 1 to 1000; default: 200"
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
    parser.add_argument("--call-id", help="id of the call; with several files, followed by a number")


def shape(arguments: argparse.Namespace) -> Shape:
    """The shape that the options ask for."""
    return Shape(
        layout=arguments.layout,
        encoding=arguments.encoding,
        rate_hz=arguments.rate,
        chunk_ms=arguments.chunk_ms,
        notice=arguments.notice,
        attributes=dict(arguments.attr),
    )


def call_ids(arguments: argparse.Namespace, *, suffix: str = "") -> list[str]:
    """One call id per file."""
    files: list[Path] = arguments.files
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


def _chunk_ms(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:  # noqa: PLR2004 - the contract's longest record
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)
