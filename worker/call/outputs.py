"""The values that a call returns after one record, and for one commit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from callmood.worker.call.fold import Folded
from callmood.worker.records import Result, Utterance


class Outcome(NamedTuple):
    """What a record led to: utterances for the model; or nothing, if it was a duplicate.

    `is_plain`: it was audio of a known stream and nothing else, so nothing is due earlier than before it.
    """

    utterances: list[Utterance]
    is_duplicate: bool = False
    is_plain: bool = False


class Released(NamedTuple):
    """A result, its number in the call, and when its utterance closed and its answer came (wall clock, ms)."""

    result: Result
    number: int
    decided_ms: float
    known_ms: float


class Saved(NamedTuple):
    """A call as it is to be stored, and the offsets that a successor with this state need not read again."""

    blob: bytes
    settled_offsets: list[int]


class Due(NamedTuple):
    """All of a call that the next commit must hold. The call forgets it when the commit is confirmed, not before.

    `saved.blob` is empty for a finished call. `is_changed`: the aggregate differs from the one that was committed last.
    """

    results: tuple[Released, ...]
    alerts: tuple[Mapping[str, Any], ...]
    saved: Saved
    folded: Folded
    is_changed: bool
    is_first: bool
