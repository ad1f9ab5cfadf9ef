"""The names of the keys in Redis."""

from pathlib import Path

import pytest

from callmood import schemas
from callmood.schemas.keys import Keys

KEYS = Keys()


@pytest.mark.parametrize(
    "key",
    [
        KEYS.call("<call_id>"),
        KEYS.utterances_of("<call_id>"),
        KEYS.utterances,
        KEYS.alerts,
        KEYS.live_by("update"),
        KEYS.live_by("risk"),
        KEYS.position("<topic>", "<partition>"),
        KEYS.states("<topic>", "<partition>"),
    ],
)
def test_the_catalogue_lists_every_key(key):
    """Each key has a row in schemas/redis.md under the very name that the worker uses."""
    catalogue = (Path(schemas.__file__).parent / "redis.md").read_text(encoding="utf-8")
    assert f"| `{key}` |" in catalogue


def test_the_prefix_is_a_hash_tag():
    """All keys begin with the prefix in braces, so that a cluster keeps them in one slot."""
    assert Keys("other").call("7") == "{other}:call:7"
    assert Keys("other").named("*") == "{other}:*"
