"""Ctrl-C and SIGTERM: a command ends with one line; a training run first completes its step and writes a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], None]


class Stopped(KeyboardInterrupt):
    """The process received a signal that ends it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code: Final = 128 + number  # as a shell reports it


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Both signals raise `Stopped` wherever the main thread is."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextlib.contextmanager
def between_steps() -> Iterator[Callable[[], Stopped | None]]:
    """The first signal waits: the yielded function returns it, to be raised after the step. A second one does not."""
    received: list[Stopped] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(Stopped(number))
        if len(received) > 1:
            raise received[0]

    with _handled_by(note):
        yield lambda: received[0] if received else None


@contextlib.contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only this one may set handlers
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
