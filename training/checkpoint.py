"""Files that survive a kill: each is written under a temporary name, then renamed."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from callmood.worker.errors import ConfigurationError

CHECKPOINT: Final = "checkpoint.pt"


def write(path: Path, put: Callable[[BinaryIO], Any]) -> None:
    """Write a file by `put`; after a crash at any time, the path has the old or the new content.

    What a full disk leaves behind is deleted.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; the message has the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            put(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:  # clean up, then raise it again
        beside.unlink(missing_ok=True)
        refusal = error.__context__ if isinstance(error, RuntimeError) else error  # torch raises another over it
        if isinstance(refusal, OSError):
            raise OSError(f"{path}: cannot be written: {refusal.strerror}") from error
        raise
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the move itself
    finally:
        os.close(folder)


def refuse_overwriting(out: Path, *sources: Path) -> None:
    """Check that a file or folder to write is not one that the command reads.

    Raises:
        ConfigurationError: it is one of them.
    """
    for source in sources:
        if out.exists() and source.exists() and out.samefile(source):
            raise ConfigurationError(f"{out}: this command reads it, so it cannot write it: choose another path")


def write_text(path: Path, text: str) -> None:
    """Write text as `write` does."""
    write(path, lambda file: file.write(text.encode()))


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values as `write` does."""
    write(path, lambda file: torch.save(state, file))


def drop_moments(path: Path) -> None:
    """Keep of a finished run's checkpoint what `export` and `--resume` need: the best weights, not the optimiser's."""
    state = load(path)
    if "optimizer" in state:
        save(path, {name: state[name] for name in ("progress", "best", "fingerprint")})


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote; nothing but tensors and plain values is unpickled.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"{path}: cannot resume from this checkpoint: {error}") from error
    return state
