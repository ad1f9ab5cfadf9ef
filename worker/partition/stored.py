"""Reads the stored state of a call. Pure."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from callmood.worker.call.call import Call
from callmood.worker.call.checkpoint import Stored
from callmood.worker.call.rule import Rule
from callmood.worker.errors import CallmoodError
from callmood.worker.partition.ended import Ended
from callmood.worker.settings import Settings


def stored_call(call_id: str, blob: bytes, settings: Settings, rules: Sequence[Rule]) -> Call | Ended | None:
    """A live call, one that is over, or None if this is no state.

    Raises:
        ConfigurationError: another version of the worker wrote it.
    """
    try:
        return Ended.unpack(blob) or Call.restore(call_id, blob, settings, rules)
    except CallmoodError:
        raise
    except Exception:  # noqa: BLE001 - as good as lost: it would end every worker that takes the partition over
        return None


def restored_call(call_id: str, blob: bytes, settings: Settings, rules: Sequence[Rule]) -> Call | Ended | None:
    """As `stored_call`. A call that was over, and has gone on with records that are read again, is over until then.

    Raises:
        ConfigurationError: another version of the worker wrote it.
    """
    call = stored_call(call_id, blob, settings, rules)
    return Ended.of(call, blob) if isinstance(call, Call) and call.is_over else call


def resumed_call(call_id: str, state: bytes, settings: Settings, rules: Sequence[Rule], *, first_offset: int) -> Call:
    """The call in this state. Without one, or if it cannot be read, a call that begins at this offset."""
    call = stored_call(call_id, state, settings, rules) if state else None
    return call if isinstance(call, Call) else Call(call_id, settings, rules, first_offset=first_offset)


def newest_time_ms(states: Iterable[bytes]) -> int:
    """The partition's clock at the newest record of any call with a readable state; 0 without one."""
    newest_ms = 0
    for blob in states:
        with suppress(Exception):  # the next owner of the partition reads them all, and reports those
            ended = Ended.unpack(blob)
            newest_ms = max(
                newest_ms, Stored.unpack(blob).checkpoint.seen_at_ms if ended is None else ended.ended_at_ms
            )
    return newest_ms
