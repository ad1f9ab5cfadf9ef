"""How a bug is planted in the real classes, for as long as its context lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.simulation.redis_side import Client
from tests.simulation.scenario import Output

Plant = Callable[[], Iterator[None]]


class Bug(NamedTuple):
    """What plants it, a seed that finds it, and the output of the worlds to search."""

    plant: Callable[[], Any]
    seed: int
    output: Output


BUGS: dict[str, Bug] = {}


def planted(seed: int, output: Output = "redis") -> Callable[[Plant], Plant]:
    """Put a bug on the list, under its name."""

    def note(plant: Plant) -> Plant:
        BUGS[plant.__name__] = Bug(contextmanager(plant), seed, output)
        return plant

    return note


def around(owner: type, name: str, wrap: Callable[..., Any]) -> Any:
    """Replace a method by `wrap(original, self, ...)`."""
    original = getattr(owner, name)
    return patch.object(owner, name, lambda self, *args, **more: wrap(original, self, *args, **more))


def around_script(wrap: Callable[..., Any]) -> Any:
    """Replace how the commit script is sent by `wrap(send, script)`; the claim script is sent as ever."""

    def send(original, self, script, keys, args):
        if "cmsgpack" not in script:
            return original(self, script, keys, args)
        return wrap(lambda text: original(self, text, keys, args), script)

    return around(Client, "_send", send)


def without(script: str, start: str, end: str, instead: str = "") -> str:
    """The script without what stands from `start` up to `end`."""
    first = script.index(start)
    return script[:first] + instead + script[script.index(end, first) :]
