"""Checkpoints on the Hugging Face hub: `hf://OWNER/NAME@REVISION`, from the local cache or, once, by download."""

import re
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from callmood.worker.errors import ModelError

SCHEME: Final = "hf://"
_ADDRESS: Final = re.compile(r"hf://([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
_WEIGHTS: Final = "model.safetensors"
_FILES: Final = ["config.json", "preprocessor_config.json", _WEIGHTS]
_PICKLE: Final = "pytorch_model.bin"


def folder(path: str, *, pickles: bool = False) -> Path | None:
    """Where the files of an `hf://` path are on this machine; None for any other path.

    The revision is a full commit hash: a branch can move, and every label would change with it. With `pickles`, a
    revision without safetensors comes with `pytorch_model.bin`; only training reads it.

    Raises:
        ModelError: the path has no such revision, or the files are neither in the cache nor on the hub.
    """
    if not path.startswith(SCHEME):
        return None
    address = _ADDRESS.fullmatch(path)
    if address is None:
        raise ModelError(f"{path}: give hf://OWNER/NAME@REVISION with the 40 hexadecimal digits of a commit")
    name, revision = address.groups()
    found = _fetched(path, name, revision, _FILES)
    if pickles and not (found / _WEIGHTS).exists():
        found = _fetched(path, name, revision, [*_FILES, _PICKLE], wanted=_PICKLE)
    return found


def _fetched(path: str, name: str, revision: str, files: list[str], wanted: str = "") -> Path:
    """The folder of these files from the cache, if it holds `wanted`; else by download."""
    try:
        cached = Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=True))
        if (cached / wanted).exists():
            return cached
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:  # all that the client raises is one of them
        raise ModelError(f"{path}: {error}") from error
