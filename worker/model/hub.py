"""Checkpoints on the Hugging Face hub: `hf://OWNER/NAME@REVISION`, from the local cache or, once, by download."""

import re
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from callmood.worker.errors import ModelError

SCHEME: Final = "hf://"
_ADDRESS: Final = re.compile(r"hf://([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
_FILES: Final = ["config.json", "preprocessor_config.json", "model.safetensors"]


def folder(path: str) -> Path | None:
    """Where the files of an `hf://` path are on this machine; None for any other path.

    The revision is a full commit hash: a branch may be moved, and with it every label, while nobody looks.

    Raises:
        ModelError: the path has no such revision, or the files are neither in the cache nor to be had.
    """
    if not path.startswith(SCHEME):
        return None
    address = _ADDRESS.fullmatch(path)
    if address is None:
        raise ModelError(f"{path}: give hf://OWNER/NAME@REVISION with the 40 hexadecimal digits of a commit")
    name, revision = address.groups()
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (OSError, ValueError) as error:  # all that the client raises is one of them
        raise ModelError(f"{path}: {error}") from error
