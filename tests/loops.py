"""An ingest loop around a consumer and a store that note what they are asked for."""

from types import SimpleNamespace

from callmood.worker.adapters.consume import Changes
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.errors import StoreUnavailable
from callmood.worker.records import Position, Record
from callmood.worker.run.ingest import Ingest
from callmood.worker.run.outside import Outside
from callmood.worker.settings import Settings

UNREADABLE = Record(Position("audio", 0, 0), b"call", b"", (), 1)


class _Consumer:
    """Three partitions; the first holds one unreadable record."""

    def __init__(self):
        self.sources = [TopicPartition("audio", number) for number in range(3)]
        self.assigned, self.started, self.polls = set(self.sources), [], 0
        self.revoked, self.shown = set(), []
        self.unread = {self.sources[0]: [UNREADABLE]}
        self.skipped, self.waits_ms = [], []

    def poll(self, timeout_ms):
        self.polls += 1
        self.waits_ms.append(timeout_ms)
        polled, self.unread = (self.unread, {}) if self.sources[0] in self.started else ({}, self.unread)
        return polled

    def take_skipped(self):
        skipped, self.skipped = self.skipped, []
        return skipped

    def take_changes(self):
        changes, self.assigned, self.revoked = Changes(self.revoked, self.assigned), set(), set()
        return changes

    def start(self, source, _offset):
        self.started.append(source)

    def show_progress(self, watermarks):
        self.shown.append(watermarks)

    def start_of(self, _source):
        return 0

    oldest = lag = position = start_of

    def stable_ends(self, _sources):
        return {}

    def pause(self, *_):
        pass

    resume = pause


class _Store:
    """Remembers when each partition was claimed; does not answer commits while it is down."""

    moves_group_offsets = False
    can_commit = True

    def __init__(self, consumer):
        self.consumer, self.is_down, self.claimed_at_poll, self.committed = consumer, False, [], []
        self.silent = set()
        """Partitions whose commits are not answered, where others are."""

    def claim(self, _source):
        self.claimed_at_poll.append(self.consumer.polls)
        return Restored(None, None, {})

    def commit(self, commits):
        answered = [commit for commit in commits if not self.is_down and commit.source not in self.silent]
        self.committed += answered
        is_whole = len(answered) == len(commits)
        return Committed(tuple(answered), failure=None if is_whole else StoreUnavailable("down"))


def new_store():
    """A store, and as its `consumer` three partitions, of which the first holds one unreadable record."""
    return _Store(_Consumer())


def wired(store, clock, monotonic, *, sent=None, answers=()):
    """A loop around this store and its consumer, with a model that gives these answers at each look."""
    inference = SimpleNamespace(model=None, beat=None, collect=lambda: answers, healthy=lambda _now_s: True)
    dead_letters = SimpleNamespace(send=lambda letters: sent.extend(letters) if sent is not None else None)
    outside = Outside(store.consumer, store, inference, dead_letters)
    return Ingest(outside, Settings(), (), clock, monotonic, lambda _s: None)
