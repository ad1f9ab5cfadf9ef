"""Who spoke when: turns in; talk, silence, overlap and interruptions out. Pure.

Utterances come in the order in which they were decided, so one that began earlier may come later: a long sentence is
decided after the short "yes" inside it. The newest `horizon_ms` of the time line therefore stay open; what lies before
is settled, counted and forgotten, which bounds the state of a call that never ends. Figures asked for at any time
equal those of the whole list of turns so far, as long as no turn begins before the settled part; the share of a turn
that does is left out.

A time line is a plain dict that msgpack can carry. Functions return a new one and leave their argument as it was.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import combinations, product
from typing import Any, Final, NamedTuple

from callmood.schemas.common import Role

HORIZON_MS: Final = 30_000
"""Twice the default longest utterance: room for the decision's delay and for streams that are not in step."""
INTERRUPTION_MS: Final = 500
"""Shorter simultaneous speech is a "yes" or the padding of two utterances, not an interruption."""
LONG_SILENCE_MS: Final = 5_000
"""Settled silences from this length on are remembered for rules."""

_PAUSE = "pause"
_GAP = "gap"
_KINDS_OF_NO_AUDIO = (_PAUSE, _GAP)
_CANNOT_INTERRUPT = (*_KINDS_OF_NO_AUDIO, Role.IVR, Role.MIXED)
_MAX_OPEN_TURNS = 96
_MAX_SILENCES = 8


class Turn(NamedTuple):
    """A stretch of the time line: speech of one speaker (`kind` is the role), or a stretch without audio."""

    start_ms: int
    end_ms: int
    kind: str
    speaker: str


@dataclass(slots=True)
class Figures:
    """What the time line up to `at_ms` adds up to, and since when nobody has spoken there (None: somebody does)."""

    at_ms: int = 0
    talk_ms: int = 0
    overlap_ms: int = 0
    non_talk_ms: int = 0
    redacted_ms: int = 0
    missing_ms: int = 0
    longest_silence_ms: int = 0
    quiet_since_ms: int | None = None

    def pass_time(self, until_ms: int, *, speakers: int, paused: int, missing: int) -> None:
        """Move on to `until_ms`; nothing starts or ends on the way."""
        span_ms = until_ms - self.at_ms
        self.talk_ms += span_ms if speakers else 0
        self.overlap_ms += span_ms if speakers > 1 else 0
        self.redacted_ms += span_ms if paused else 0
        self.missing_ms += span_ms if missing else 0
        if speakers or paused or missing:
            self.quiet_since_ms = None
        else:
            self.non_talk_ms += span_ms
            self.quiet_since_ms = self.at_ms if self.quiet_since_ms is None else self.quiet_since_ms
            self.longest_silence_ms = max(self.longest_silence_ms, until_ms - self.quiet_since_ms)
        self.at_ms = until_ms


@dataclass(frozen=True, slots=True)
class Interruptions:
    """How often a role interrupted, and for how long both then spoke."""

    count: int = 0
    total_ms: int = 0


def empty(horizon_ms: int = HORIZON_MS) -> dict[str, Any]:
    """A time line at 0. `horizon_ms` must exceed the longest utterance by the delay of its decision."""
    return {
        "horizon_ms": horizon_ms,
        "end_ms": 0,
        "turns": [],
        "settled": list(astuple(Figures())),
        "silences": [],
        "interruptions": {},
    }


def add_speech(timeline: dict[str, Any], role: Role, speaker: str, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Add an utterance. Utterances of one speaker that touch (a forced split) become one turn."""
    return _add(timeline, Turn(start_ms, end_ms, role.value, speaker))


def add_pause(timeline: dict[str, Any], start_ms: int, end_ms: int) -> dict[str, Any]:
    """Add a stretch that the producer kept from us: neither speech nor silence."""
    return _add(timeline, Turn(start_ms, end_ms, _PAUSE, ""))


def add_gap(timeline: dict[str, Any], start_ms: int, end_ms: int) -> dict[str, Any]:
    """Add a stretch whose audio was lost: neither speech nor silence."""
    return _add(timeline, Turn(start_ms, end_ms, _GAP, ""))


def finish(timeline: dict[str, Any], end_ms: int) -> dict[str, Any]:
    """The call ended: nothing comes any more, so all of it is settled."""
    end_ms = max(end_ms, timeline["end_ms"])
    timeline = _settle({**timeline, "end_ms": end_ms}, end_ms, closes_before_ms=end_ms + 1)
    figures = Figures(*timeline["settled"])
    if figures.quiet_since_ms is None:
        return timeline
    return {**timeline, "silences": _remember(timeline["silences"], [[figures.quiet_since_ms, end_ms]])}


def figures(timeline: dict[str, Any]) -> Figures:
    """The figures up to the end of the time line so far, its open part included."""
    total = Figures(*timeline["settled"])
    _sweep(total, _turns(timeline), timeline["end_ms"])
    return total


def interruptions(timeline: dict[str, Any]) -> dict[str, Interruptions]:
    """Interruptions so far by the role of the interrupter: of two who speak at once, the one who began later.

    Both must speak at once for `INTERRUPTION_MS`. An IVR and a mixed channel neither interrupt nor are interrupted.
    """
    total = {role: Interruptions(*settled) for role, settled in timeline["interruptions"].items()}
    _count(total, combinations(_turns(timeline), 2))
    return total


def silences(timeline: dict[str, Any]) -> list[tuple[int, int]]:
    """The newest settled silences (start and end in ms) of at least `LONG_SILENCE_MS`, oldest first."""
    return [(start_ms, end_ms) for start_ms, end_ms in timeline["silences"]]


def _turns(timeline: dict[str, Any]) -> list[Turn]:
    return [Turn(*turn) for turn in timeline["turns"]]


def _add(timeline: dict[str, Any], turn: Turn) -> dict[str, Any]:
    turns = []
    for other in _turns(timeline):
        if other[2:] == turn[2:] and other.start_ms <= turn.end_ms and turn.start_ms <= other.end_ms:
            start_ms, end_ms = min(turn.start_ms, other.start_ms), max(turn.end_ms, other.end_ms)
            turn = turn._replace(start_ms=start_ms, end_ms=end_ms)
        else:
            turns.append(other)
    turns.append(turn)
    end_ms = max(timeline["end_ms"], turn.end_ms)
    timeline = {**timeline, "end_ms": end_ms, "turns": [list(t) for t in turns]}
    frontier_ms = closes_before_ms = end_ms - timeline["horizon_ms"]
    if len(turns) > _MAX_OPEN_TURNS:
        frontier_ms = max(frontier_ms, min(t.end_ms for t in turns))
        closes_before_ms = frontier_ms + 1
    return _settle(timeline, frontier_ms, closes_before_ms=closes_before_ms)


def _settle(timeline: dict[str, Any], frontier_ms: int, *, closes_before_ms: int) -> dict[str, Any]:
    """Count what lies before the frontier for good, and forget the turns that nothing can lengthen any more."""
    settled = Figures(*timeline["settled"])
    turns = _turns(timeline)
    ended = _sweep(settled, turns, frontier_ms)
    closed = [turn for turn in turns if turn.end_ms < closes_before_ms]
    still_open = [turn for turn in turns if turn.end_ms >= closes_before_ms]
    interrupting = {role: Interruptions(*counted) for role, counted in timeline["interruptions"].items()}
    _count(interrupting, [*combinations(closed, 2), *product(closed, still_open)])
    return {
        **timeline,
        "turns": [list(turn) for turn in still_open],
        "settled": list(astuple(settled)),
        "silences": _remember(timeline["silences"], ended),
        "interruptions": {role: list(astuple(counted)) for role, counted in interrupting.items()},
    }


def _sweep(total: Figures, turns: list[Turn], until_ms: int) -> list[list[int]]:
    """Move `total` on to `until_ms` and return the silences that ended on the way."""
    changes = [(until_ms, 0, "")]
    for turn in turns:
        if turn.end_ms > total.at_ms and turn.start_ms < until_ms:
            changes.append((max(turn.start_ms, total.at_ms), 1, turn.kind))
            changes.append((min(turn.end_ms, until_ms), -1, turn.kind))
    ended = []
    speakers = paused = missing = 0
    for at_ms, change, kind in sorted(changes):
        if at_ms > total.at_ms:
            quiet_since_ms, quiet_until_ms = total.quiet_since_ms, total.at_ms
            total.pass_time(at_ms, speakers=speakers, paused=paused, missing=missing)
            if quiet_since_ms is not None and total.quiet_since_ms is None:
                ended.append([quiet_since_ms, quiet_until_ms])
        paused += change if kind == _PAUSE else 0
        missing += change if kind == _GAP else 0
        speakers += change if kind not in _KINDS_OF_NO_AUDIO else 0
    return ended


def _remember(known: list[list[int]], ended: list[list[int]]) -> list[list[int]]:
    long = [silence for silence in ended if silence[1] - silence[0] >= LONG_SILENCE_MS]
    return [*known, *long][-_MAX_SILENCES:]


def _count(total: dict[str, Interruptions], pairs: Iterable[tuple[Turn, Turn]]) -> None:
    """Add the interruptions among pairs of turns."""
    for one, other in pairs:
        first, later = sorted((one, other))
        if first.start_ms == later.start_ms or first.speaker == later.speaker:
            continue
        both_ms = min(first.end_ms, later.end_ms) - later.start_ms
        if both_ms < INTERRUPTION_MS or first.kind in _CANNOT_INTERRUPT or later.kind in _CANNOT_INTERRUPT:
            continue
        known = total.get(later.kind, Interruptions())
        total[later.kind] = Interruptions(known.count + 1, known.total_ms + both_ms)
