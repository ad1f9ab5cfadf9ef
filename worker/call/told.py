"""Facts about a call that the producer sends: its attributes, and whether the caller was informed. Pure."""

from collections.abc import Mapping

from callmood.schemas.common import Notice
from callmood.worker.call.fold import Fold
from callmood.worker.records import Chunk, reserved


class Told:
    """The newest of each.

    Args:
        notice: None if nothing was said of it.
        names: the attributes with reserved names.
    """

    def __init__(self, notice: Notice | None = None, names: Mapping[str, str] | None = None) -> None:
        self.notice = notice
        self.names: Mapping[str, str] = names or {}
        self._described: Mapping[str, str] = {}  # the newest attributes that are in the aggregate

    def is_news(self, chunk: Chunk) -> bool:
        """Whether the record can say something new."""
        return chunk.notice is not None or bool(chunk.attributes and chunk.attributes is not self._described)

    def take(self, chunk: Chunk, fold: Fold) -> None:
        """Take what a record says, also into the aggregate."""
        self.notice = chunk.notice or self.notice
        if chunk.attributes or chunk.notice is not None:
            self.names = {**self.names, **reserved(chunk.attributes)}
            fold.describe(chunk.attributes, chunk.notice)
            self._described = chunk.attributes
