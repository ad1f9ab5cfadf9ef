"""The ingest loop's clocks, and what its stages report when they stand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from telephony import Leg, heard, log_of, quiet, voice

from callmood.worker import metrics
from callmood.worker.adapters.consume import Changes
from callmood.worker.adapters.store import Committed
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.errors import StoreUnavailable, Unsettled
from callmood.worker.records import ModelInfo
from callmood.worker.run.ingest import Ingest
from callmood.worker.run.outside import Outside
from callmood.worker.settings import Settings

SOURCES = [TopicPartition("audio", 0), TopicPartition("audio", 1)]
SPEECH = (quiet(1) + voice(1) + quiet(1)) * 40
TURN_S = 0.1


class _Consumer:
    """One record of each partition a poll; a transaction may hold them back."""

    def __init__(self, logs):
        self.logs, self.assigned, self.started, self.is_paused = logs, set(logs), {}, False
        self.is_held, self.gives, self.revoked = False, True, set()

    def poll(self, _timeout_ms):
        if self.is_paused or self.is_held or not self.gives:
            return {}
        polled = {}
        for source, at in self.started.items():
            if self.logs[source][at:]:
                polled[source] = self.logs[source][at : at + 1]
                self.started[source] += 1
        return polled

    def take_skipped(self):
        return []

    def take_changes(self):
        changes, self.assigned, self.revoked = Changes(self.revoked, self.assigned), set(), set()
        return changes

    def start(self, source, offset):
        self.started[source] = offset

    def start_of(self, _source):
        return 0

    oldest = start_of

    def position(self, source):
        return self.started[source]

    def lag(self, source):
        return len(self.logs[source]) - self.started[source]

    def stable_ends(self, sources):
        return {source: self.started[source] if self.is_held else len(self.logs[source]) for source in sources}

    def pause(self):
        self.is_paused = True

    def resume(self, _sources):
        self.is_paused = False

    def show_progress(self, _watermarks):
        pass


class _Store:
    moves_group_offsets = False
    can_commit = True

    def __init__(self):
        self.commits, self.is_down, self.unsettled = [], False, 0
        self.tries = {"claim": 0, "commit": 0}

    def claim(self, _source):
        self.tries["claim"] += 1
        if self.is_down:
            raise StoreUnavailable("down")
        if self.unsettled:
            self.unsettled -= 1
            raise Unsettled("not decided")
        return Restored(None, None, {})

    def commit(self, commits):
        self.tries["commit"] += 1
        if self.is_down:
            return Committed((), failure=StoreUnavailable("down"))
        self.commits += commits
        return Committed(tuple(commits))


class _Model:
    """Answers `slow_s` after it was asked, one utterance at a time; or never."""

    model, beat = ModelInfo("m", "1", "d"), None

    def __init__(self, now):
        self.asked, self.slow_s, self.is_dumb, self._now, self._free_s = {}, 0.0, False, now, 0.0

    def submit(self, key, utterance):
        self._free_s = max(self._free_s, self._now()) + self.slow_s
        self.asked.setdefault(key, (self._free_s, heard(utterance.audio)))

    def collect(self):
        done = [] if self.is_dumb else [key for key, (at_s, _) in self.asked.items() if at_s <= self._now()]
        return [(key, self.asked.pop(key)[1]) for key in done]

    def healthy(self, _now_s):
        return True


def log_on(source):
    """A call's records, on this partition."""
    log = log_of(Leg().media(SPEECH, chunk_ms=200))
    return [replace(record, position=replace(record.position, partition=source.partition)) for record in log]


class _World:
    """A loop over two partitions, each with the same call, and two clocks."""

    def __init__(self, sources=SOURCES[:1], **settings):
        self.now_s, self.wall_step_s = 1000.0, 0.0
        self.consumer = _Consumer({source: log_on(source) for source in sources})
        self.store, self.model = _Store(), _Model(lambda: self.now_s)
        outside = Outside(self.consumer, self.store, self.model, SimpleNamespace(send=lambda _: None))
        clocks = (lambda: 1_700_000_000.0 + self.now_s + self.wall_step_s, lambda: self.now_s)
        self.loop = Ingest(outside, Settings(**settings), DEFAULT_RULES, *clocks, self.sleep)

    def sleep(self, seconds):
        self.now_s += seconds

    def run(self, seconds):
        """So many seconds of turns; returns the commits made."""
        before = len(self.store.commits)
        for _ in range(round(seconds / TURN_S)):
            self.now_s += TURN_S
            self.loop.turn()
        return self.store.commits[before:]

    @property
    def stuck(self):
        status = self.loop.status()
        return status.stuck_s, status.stuck_at


@pytest.fixture
def world():
    """A world with one partition."""
    return _World()


STEPS_S = pytest.mark.parametrize("step_s", [-3600.0, 3600.0, -1.0])


@STEPS_S
def test_commits_go_on_when_the_wall_clock_is_set(world, step_s):
    """Within a second there is a commit, and the results keep coming."""
    assert world.run(10.0)
    world.wall_step_s = step_s
    assert world.run(1.0)
    assert sum(len(commit.utterances) for commit in world.run(10.0)) >= 3


@STEPS_S
def test_idle_partitions_are_confirmed_when_the_wall_clock_is_set(world, step_s):
    """Every five seconds, no sooner and no later."""
    world.consumer.logs = {SOURCES[0]: []}
    world.run(6.0)
    world.wall_step_s = step_s
    assert len(world.run(20.0)) == 4


@STEPS_S
def test_takeovers_are_tried_again_when_the_wall_clock_is_set(world, step_s):
    """Half a second after the store was not ready."""
    world.store.unsettled = 1
    world.run(0.1)
    assert world.loop.status().restoring == 1
    world.wall_step_s = step_s
    world.run(0.4)
    assert world.loop.status().restoring == 1
    world.run(0.3)
    assert (world.loop.status().partitions, world.loop.status().restoring) == (1, 0)


@STEPS_S
def test_a_standstill_is_seen_when_the_wall_clock_is_set(world, step_s):
    """Its length is real time."""
    world.run(5.0)
    world.consumer.gives = False
    world.run(20.0)
    world.wall_step_s = step_s
    world.run(20.0)
    stuck_s, stuck_at = world.stuck
    assert (round(stuck_s), stuck_at) == (pytest.approx(40, abs=2), "reading")


@STEPS_S
def test_a_drain_keeps_its_budget_when_the_wall_clock_is_set(world, step_s):
    """A model that does not answer holds the drain up for its budget and no longer."""
    world.model.is_dumb = True
    world.run(10.0)
    began_s = world.now_s
    world.wall_step_s = step_s
    assert not world.loop.drain(world.now_s + 3.0)
    assert world.now_s - began_s == pytest.approx(3.0, abs=0.1)


def test_a_slow_model_is_no_standstill(world):
    """It answers as fast as it can; that the watermark waits for it is nothing that a restart would help."""
    world.model.slow_s = 20.0
    stuck = []
    for _ in range(60):
        world.run(5.0)
        stuck.append(world.stuck[0])
    assert 15.0 < max(stuck) < 30.0
    assert world.model.asked


def test_a_model_that_answers_nothing_is_a_standstill(world):
    """Its process beats, but nothing comes back."""
    world.model.is_dumb = True
    world.run(100.0)
    stuck_s, stuck_at = world.stuck
    assert stuck_s > 60.0
    assert stuck_at == "inference"


def test_a_transaction_of_somebody_else_is_no_standstill(world):
    """Nothing can be read, which no restart changes: after a few seconds that is known, and logged."""
    world.run(5.0)
    world.consumer.is_held = True
    with capture_logs() as lines:
        world.run(200.0)
    assert world.stuck[0] < 10.0
    assert [line["offset"] for line in lines if "open transaction" in line["event"]] == [
        world.consumer.started[SOURCES[0]]
    ]
    world.consumer.is_held = False
    assert world.run(5.0)


def test_a_store_that_is_away_is_no_standstill(world):
    """The loop waits for it, and the status says so; once it is back, time begins again."""
    world.run(5.0)
    world.store.is_down = True
    world.run(200.0)
    assert not world.loop.status().is_store_healthy
    assert world.stuck[0] < 1.0
    world.store.is_down = False
    world.run(2.0)
    assert world.loop.status().is_store_healthy
    assert world.stuck[0] < 2.5


def test_the_status_is_a_question(world):
    """Asking for it changes nothing."""
    world.consumer.gives = False
    world.run(10.0)
    assert len({world.loop.status() for _ in range(10)}) == 1


def test_one_call_on_two_partitions_gets_all_its_answers():
    """Utterances of the same id are told apart by partition; both watermarks move on, and one line names the call."""
    world = _World(SOURCES)
    world.model.slow_s = 0.4
    with capture_logs() as lines:
        world.run(30.0)
    by_partition = {source: [c for c in world.store.commits if c.source == source] for source in SOURCES}
    ids = {
        source: [u["utterance_id"] for c in commits for u in c.utterances] for source, commits in by_partition.items()
    }
    assert len(ids[SOURCES[0]]) > 5
    assert ids[SOURCES[0]] == ids[SOURCES[1]]
    assert all(commits[-1].watermark > 100 for commits in by_partition.values())
    split = [line for line in lines if line["event"] == "call is on two partitions"]
    assert [(line["partition"], line["other_partition"]) for line in split] == [(1, 0)]


def test_a_store_that_is_away_pauses_reading(world):
    """Or memory would grow for as long as it is away; nothing is read before it is back."""
    world.run(5.0)
    world.store.is_down = True
    world.run(2.0)
    assert world.consumer.is_paused
    read = dict(world.consumer.started)
    world.run(20.0)
    assert world.consumer.started == read
    world.store.is_down = False
    world.run(2.0)
    assert not world.consumer.is_paused


@pytest.mark.parametrize("limit", [{"max_in_flight": 3}, {"max_in_flight_mb": 0.025}])
def test_a_model_that_does_not_answer_pauses_reading(limit):
    """Three utterances, or 25 kB of their audio, are at the model at most; when it answers, all others follow."""
    world, free = _World(model=limit), _World()
    world.model.is_dumb = True
    world.run(60.0)
    assert world.consumer.is_paused
    assert len(world.model.asked) == 3
    read = dict(world.consumer.started)
    world.run(60.0)
    assert world.consumer.started == read
    world.model.is_dumb = False
    said, said_freely = ([u for commit in one.run(90.0) for u in commit.utterances] for one in (world, free))
    assert not world.consumer.is_paused
    assert [u["utterance_id"] for u in said] == [u["utterance_id"] for u in said_freely]
    assert len(said) == 40


def test_reading_goes_on_when_half_is_answered():
    """Or each answer would end the pause for one record."""
    world = _World(model={"max_in_flight": 4})
    world.model.is_dumb = True
    world.run(60.0)
    asked = world.model.asked
    del asked[next(iter(asked))]
    world.loop._waiting = {key: world.loop._waiting[key] for key in asked}
    world.run(1.0)
    assert world.consumer.is_paused
    world.loop._waiting = dict(list(world.loop._waiting.items())[:2])
    world.run(0.1)
    assert not world.consumer.is_paused


def test_the_inference_process_is_judged_by_the_monotonic_clock(world, monkeypatch):
    """Its beats have times of that clock."""
    asked = []
    monkeypatch.setattr(world.model, "healthy", lambda now_s: asked.append(now_s) or True)
    world.wall_step_s = 3600.0
    world.run(1.0)
    assert asked[-1] == world.now_s


def test_the_gauge_of_what_is_in_flight_counts_utterances(world):
    """Autoscalers and alerts look at it: those at the model, not what waits for the store."""
    world.model.is_dumb = True
    world.run(30.0)
    assert metrics.IN_FLIGHT._value.get() == len(world.model.asked) >= 5


def test_a_drain_reads_nothing(world):
    """What it read would be dropped, and its successor would start behind it."""
    world.run(5.0)
    read = dict(world.consumer.started)
    world.model.is_dumb = True
    world.loop.drain(world.now_s + 3.0)
    assert world.consumer.is_paused
    assert world.consumer.started == read


def test_each_commit_names_the_model_that_answers_now(world):
    """The model may have been opened, or changed, since the commit before."""
    world.model.model = None
    world.run(0.5)
    for version in ("1", "2"):
        world.model.model = ModelInfo("m", version, "d")
        commits = world.run(20.0)
        assert {u["model"]["version"] for commit in commits for u in commit.utterances} == {version}


def test_a_store_that_is_away_is_asked_twice_a_second():
    """For its commits as for takeovers, of which one try says enough: each may take as long as its time limit."""
    for what, settled_s in (("commit", 5.0), ("claim", 0.0)):
        world = _World(SOURCES)
        world.run(settled_s)
        world.store.is_down, before = True, world.store.tries[what]
        world.run(10.0)
        assert world.store.tries[what] - before == pytest.approx(20, abs=2)


def test_a_partition_that_was_given_away_is_forgotten():
    """The model's answers for it are ignored, and it asks for no confirmation, which would commit all others."""
    world = _World(SOURCES)
    world.model.is_dumb = True
    world.run(30.0)
    world.consumer.revoked = {SOURCES[0]}
    world.run(1.0)
    assert {asked.source for asked in world.loop._waiting.values()} == {SOURCES[1]}
    world.model.is_dumb = False
    assert {commit.source for commit in world.run(10.0) if commit.utterances} == {SOURCES[1]}
    world.consumer.gives = False
    world.run(10.0)
    assert len(world.run(20.0)) <= 4
