"""A bundle to the hub, from where the worker takes it by its commit: `hf://OWNER/NAME@COMMIT`."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from training.export import CARD, REPORT
from worker.errors import ConfigurationError
from worker.model import load


def push(bundle: Path, repository: str, *, private: bool) -> str:
    """Upload a bundle that loads and has been judged.

    Returns:
        What `CALLMOOD_MODEL__PATH` takes.

    Raises:
        ConfigurationError: there is no report or card, or the hub refuses.
        ModelError: the bundle cannot be loaded, or its content is not what its digest says.
    """
    if missing := [name for name in (REPORT, CARD) if not (bundle / name).is_file()]:
        raise ConfigurationError(f"{bundle}: no {' and no '.join(missing)}: only what was judged is published")
    load(bundle)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=bundle, commit_message="callmood bundle")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigurationError(f"{repository}: the hub refuses: {error}") from error
    return f"hf://{repository}@{commit.oid}"
