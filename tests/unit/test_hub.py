"""Checkpoints on the hub: a pinned commit, from the cache of this machine."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from callmood.worker.errors import ModelError
from callmood.worker.model import hub
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.model.model import load

REVISION = "0123456789abcdef0123456789abcdef01234567"
PATH = f"hf://owner/some-model.v1@{REVISION}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache of our own, with one checkpoint in it, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--owner--some-model.v1" / "snapshots" / REVISION
    shutil.copytree(DEMO_FOLDER, snapshot)
    return snapshot


def test_a_cached_commit_is_loaded_without_a_network(cache):
    """The pinned commit's files are found in the hub's cache, and loaded as any folder."""
    assert hub.folder(PATH) == cache
    assert load(PATH).info.id == load(DEMO_FOLDER).info.id


@pytest.mark.usefixtures("cache")
def test_a_commit_that_is_not_to_be_had_is_an_error():
    """Neither in the cache nor to be downloaded: the error names the path."""
    with pytest.raises(ModelError, match="hf://owner/other@"):
        hub.folder(f"hf://owner/other@{REVISION}")


@pytest.mark.parametrize("path", ["hf://owner/name", "hf://owner/name@main", "hf://name@" + REVISION, PATH + "0"])
def test_only_whole_commits_are_taken(path):
    """A branch, a tag or half an address is refused: labels must not change because somebody pushed."""
    with pytest.raises(ModelError, match="40 hexadecimal digits"):
        hub.folder(path)


def test_other_paths_are_not_the_hubs():
    """A folder's path is left to who asked."""
    assert hub.folder("demo-tiny") is None
    assert hub.folder(str(Path("/some/folder"))) is None
