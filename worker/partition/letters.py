"""Dead-letter records that wait for the next commit. Pure."""

from callmood.worker.commits import DeadLetter


class Letters:
    """In the order of their records; some of those are held by the call that they pause, whose state settles them."""

    def __init__(self) -> None:
        self._letters: list[DeadLetter] = []
        self._held: set[int] = set()

    def add(self, letter: DeadLetter) -> None:
        """The next commit writes it."""
        self._letters.append(letter)

    def hold(self, offset: int) -> None:
        """The state of a call settles the record at this offset, and not its dead-letter record."""
        self._held.add(offset)

    def collect(self) -> tuple[DeadLetter, ...]:
        """Those that wait."""
        return tuple(self._letters)

    def settled_offsets(self) -> list[int]:
        """The records that are done with once all those that wait are written."""
        return _settled(self._letters, self._held)

    def confirm(self, count: int) -> list[int]:
        """The first of them are written; returns the records that are done with."""
        written = self._letters[:count]
        del self._letters[:count]
        settled = _settled(written, self._held)
        self._held.difference_update(_offsets(written))
        return settled


def _settled(letters: list[DeadLetter], held: set[int]) -> list[int]:
    return [offset for offset in _offsets(letters) if offset not in held]


def _offsets(letters: list[DeadLetter]) -> list[int]:
    return [letter.record.position.offset for letter in letters]
