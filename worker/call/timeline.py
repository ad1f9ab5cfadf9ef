"""The time line of a call: turns in; talk, silence, overlap and interruptions out. Pure.

Utterances come in the order in which they were decided, so one that began earlier may come later: a long sentence is
decided after the short "yes" inside it. The newest `horizon_ms` of the time line therefore stay open; the part before
them is closed: its figures are final, and its turns are dropped. That limits the state of a call that never ends. At
any time the figures equal those of all turns so far, unless a turn begins in the closed part; that share of the turn is
left out.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final

import msgspec
from msgspec.structs import replace

from callmood.schemas.common import Role

HORIZON_MS: Final = 30_000
"""Twice the default longest utterance: room for the decision's delay and for streams that are not in step."""
INTERRUPTION_MS: Final = 500
"""Shorter simultaneous speech is a "yes" or the padding of two utterances, not an interruption."""
LONG_SILENCE_MS: Final = 5_000
"""Closed silences from this length on are remembered for rules."""

SILENCE_MS: Final = 3_000
"""Shorter silences are part of talking to each other; `silences` counts the others, as Contact Lens does."""

_PAUSE: Final = "pause"
_GAP: Final = "gap"
_HOLD: Final = "hold"
_NO_AUDIO: Final = (_PAUSE, _GAP, _HOLD)
_SPEECH: Final = "speech"
_UNINTERRUPTED: Final = (*_NO_AUDIO, Role.IVR.value, Role.MIXED.value)
_MAX_OPEN_TURNS: Final = 96
_MAX_SILENCES: Final = 8


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of the time line: speech of one speaker, or a stretch without audio."""

    start_ms: int
    end_ms: int
    kind: str
    """The speaker's role; or that there is no audio, and why."""
    speaker: str
    """The speaker's stream and channel; empty if there is no audio."""


class Silence(msgspec.Struct, frozen=True, array_like=True):
    """A closed part of the time line without speech."""

    start_ms: int
    end_ms: int


class Interruptions(msgspec.Struct, frozen=True, array_like=True):
    """How often a role interrupted, and for how long both then spoke."""

    count: int = 0
    total_ms: int = 0


class Episodes(msgspec.Struct, frozen=True, array_like=True):
    """Unbroken stretches of one kind that reached their threshold, and since when the present one lasts."""

    count: int = 0
    total_ms: int = 0
    longest_ms: int = 0
    since_ms: int | None = None


class Figures(msgspec.Struct, frozen=True, array_like=True):
    """What the time line up to `at_ms` adds up to."""

    at_ms: int = 0
    talk_ms: int = 0
    overlap_ms: int = 0
    non_talk_ms: int = 0
    redacted_ms: int = 0
    missing_ms: int = 0
    longest_silence_ms: int = 0
    quiet_since_ms: int | None = None
    """Since when nobody has spoken there; None if somebody does, or if there is no audio."""
    hold_ms: int = 0
    silences: Episodes = Episodes()
    overlaps: Episodes = Episodes()


class Timeline(msgspec.Struct, frozen=True, array_like=True):
    """A time line from 0 on."""

    horizon_ms: int = HORIZON_MS
    """Length of the open part. It must exceed the longest utterance by the delay of its decision."""
    end_ms: int = 0
    turns: tuple[Turn, ...] = ()
    """The open part, by start."""
    closed: Figures = Figures()
    silences: tuple[Silence, ...] = ()
    """The newest closed silences of at least `LONG_SILENCE_MS`, oldest first."""
    interruptions: Mapping[str, Interruptions] = {}
    """By the role of the interrupter; only those that the open part cannot change any more."""


def add_speech(timeline: Timeline, role: Role, speaker: str, start_ms: int, end_ms: int) -> Timeline:
    """Add an utterance. Utterances of one speaker that touch (a forced split) become one turn."""
    return _add(timeline, Turn(start_ms, end_ms, role.value, speaker))


def extend(timeline: Timeline, end_ms: int) -> Timeline:
    """Let time pass up to `end_ms`, if it is later than the end: nobody speaks there, as far as is known."""
    if end_ms <= timeline.end_ms:
        return timeline
    frontier_ms = end_ms - timeline.horizon_ms
    return _close_before(replace(timeline, end_ms=end_ms), frontier_ms, turns_before_ms=frontier_ms)


def add_pause(timeline: Timeline, start_ms: int, end_ms: int) -> Timeline:
    """Add a stretch that the producer paused: neither speech nor silence."""
    return _add(timeline, Turn(start_ms, end_ms, _PAUSE, ""))


def add_hold(timeline: Timeline, start_ms: int, end_ms: int) -> Timeline:
    """Add a stretch of hold: music and announcements are not silence, and neither is their absence."""
    return _add(timeline, Turn(start_ms, end_ms, _HOLD, ""))


def add_gap(timeline: Timeline, start_ms: int, end_ms: int) -> Timeline:
    """Add a stretch whose audio was lost: neither speech nor silence."""
    return _add(timeline, Turn(start_ms, end_ms, _GAP, ""))


def finish(timeline: Timeline, end_ms: int) -> Timeline:
    """Close all of the time line: the call has ended, no turn follows."""
    end_ms = max(end_ms, timeline.end_ms)
    timeline = _close_before(replace(timeline, end_ms=end_ms), end_ms, turns_before_ms=end_ms + 1)
    if timeline.closed.quiet_since_ms is None:
        return timeline
    last = Silence(timeline.closed.quiet_since_ms, end_ms)
    return replace(timeline, silences=_remember(timeline.silences, [last]))


def figures(timeline: Timeline) -> Figures:
    """The figures up to the end of the time line so far, its open part included."""
    total, _ = _sweep(timeline.closed, timeline.turns, timeline.end_ms)
    return replace(
        total,
        silences=_ended(total.silences, total.at_ms, SILENCE_MS),
        overlaps=_ended(total.overlaps, total.at_ms, INTERRUPTION_MS),
    )


def summary(episodes: Episodes, threshold_ms: int) -> dict[str, int]:
    """`silences` or `overlaps` of call/1, from `figures`."""
    return {
        "threshold_ms": threshold_ms,
        "count": episodes.count,
        "total_ms": episodes.total_ms,
        "mean_ms": round(episodes.total_ms / episodes.count) if episodes.count else 0,
        "longest_ms": episodes.longest_ms,
    }


def interruptions(timeline: Timeline) -> Mapping[str, Interruptions]:
    """Interruptions so far by the role of the interrupter: of two who speak at once, the one who began later.

    Both must speak at once for `INTERRUPTION_MS`. An IVR and a mixed channel neither interrupt nor are interrupted.
    """
    return _count(timeline.interruptions, timeline.turns, ended_before_ms=timeline.end_ms + 1)


def _add(timeline: Timeline, turn: Turn) -> Timeline:
    turns = []
    for other in timeline.turns:
        is_same = other.kind == turn.kind and other.speaker == turn.speaker
        if is_same and other.start_ms <= turn.end_ms and turn.start_ms <= other.end_ms:
            start_ms, end_ms = min(turn.start_ms, other.start_ms), max(turn.end_ms, other.end_ms)
            turn = Turn(start_ms, end_ms, turn.kind, turn.speaker)
        else:
            turns.append(other)
    turns.append(turn)
    turns.sort(key=attrgetter("start_ms"))
    end_ms = max(timeline.end_ms, turn.end_ms)
    timeline = replace(timeline, end_ms=end_ms, turns=tuple(turns))
    frontier_ms = end_ms - timeline.horizon_ms
    if len(turns) <= _MAX_OPEN_TURNS:
        return _close_before(timeline, frontier_ms, turns_before_ms=frontier_ms)
    frontier_ms = max(frontier_ms, min(t.end_ms for t in turns))
    return _close_before(timeline, frontier_ms, turns_before_ms=frontier_ms + 1)


def _close_before(timeline: Timeline, frontier_ms: int, *, turns_before_ms: int) -> Timeline:
    """Count what lies before the frontier for good, and forget the turns that ended before `turns_before_ms`."""
    closed, ended = _sweep(timeline.closed, timeline.turns, frontier_ms)
    return replace(
        timeline,
        turns=tuple(turn for turn in timeline.turns if turn.end_ms >= turns_before_ms),
        closed=closed,
        silences=_remember(timeline.silences, ended),
        interruptions=_count(timeline.interruptions, timeline.turns, ended_before_ms=turns_before_ms),
    )


def _sweep(figures: Figures, turns: Sequence[Turn], until_ms: int) -> tuple[Figures, list[Silence]]:
    """The figures up to `until_ms`, and the silences that ended on the way there."""
    changes = [(until_ms, 0, "")]
    for turn in turns:
        if turn.end_ms > figures.at_ms and turn.start_ms < until_ms:
            changes.append((max(turn.start_ms, figures.at_ms), 1, turn.kind))
            changes.append((min(turn.end_ms, until_ms), -1, turn.kind))
    ended = []
    active = dict.fromkeys((*_NO_AUDIO, _SPEECH), 0)
    for at_ms, change, kind in sorted(changes):
        if at_ms > figures.at_ms:
            before = figures
            figures = _passed(before, at_ms, active)
            if before.quiet_since_ms is not None and figures.quiet_since_ms is None:
                ended.append(Silence(before.quiet_since_ms, before.at_ms))
        active[kind if kind in _NO_AUDIO else _SPEECH] += change
    return figures, ended


def _passed(figures: Figures, until_ms: int, active: Mapping[str, int]) -> Figures:
    """The figures at `until_ms`; nothing starts or ends on the way there. `active`: how many turns of each kind."""
    span_ms, speakers = until_ms - figures.at_ms, active[_SPEECH]
    quiet_since_ms = None
    if not any(active.values()):
        quiet_since_ms = figures.at_ms if figures.quiet_since_ms is None else figures.quiet_since_ms
    quiet_ms = 0 if quiet_since_ms is None else until_ms - quiet_since_ms
    return Figures(
        at_ms=until_ms,
        talk_ms=figures.talk_ms + (span_ms if speakers else 0),
        overlap_ms=figures.overlap_ms + (span_ms if speakers > 1 else 0),
        non_talk_ms=figures.non_talk_ms + (0 if quiet_since_ms is None else span_ms),
        redacted_ms=figures.redacted_ms + (span_ms if active[_PAUSE] else 0),
        missing_ms=figures.missing_ms + (span_ms if active[_GAP] else 0),
        longest_silence_ms=max(figures.longest_silence_ms, quiet_ms),
        quiet_since_ms=quiet_since_ms,
        hold_ms=figures.hold_ms + (span_ms if active[_HOLD] else 0),
        silences=_went_on(figures.silences, figures.at_ms, SILENCE_MS, goes_on=not any(active.values())),
        overlaps=_went_on(figures.overlaps, figures.at_ms, INTERRUPTION_MS, goes_on=speakers > 1),
    )


def _went_on(episodes: Episodes, from_ms: int, threshold_ms: int, *, goes_on: bool) -> Episodes:
    """From this time on there is an episode, or there is none."""
    if not goes_on:
        return _ended(episodes, from_ms, threshold_ms)
    return replace(episodes, since_ms=from_ms) if episodes.since_ms is None else episodes


def _ended(episodes: Episodes, at_ms: int, threshold_ms: int) -> Episodes:
    if episodes.since_ms is None:
        return episodes
    length_ms = at_ms - episodes.since_ms
    if length_ms < threshold_ms:
        return replace(episodes, since_ms=None)
    return Episodes(episodes.count + 1, episodes.total_ms + length_ms, max(episodes.longest_ms, length_ms))


def _remember(known: tuple[Silence, ...], ended: Sequence[Silence]) -> tuple[Silence, ...]:
    long = [silence for silence in ended if silence.end_ms - silence.start_ms >= LONG_SILENCE_MS]
    return (*known, *long)[-_MAX_SILENCES:]


def _count(
    known: Mapping[str, Interruptions], turns: Sequence[Turn], *, ended_before_ms: int
) -> Mapping[str, Interruptions]:
    """Add the interruptions of two turns of which at least one ended before `ended_before_ms`."""
    total = dict(known)
    for index, first in enumerate(turns):
        last_start_ms = first.end_ms - INTERRUPTION_MS
        for later in islice(turns, index + 1, None):
            if later.start_ms > last_start_ms:
                break  # turns are in order of their starts: all that follow begin too late as well
            end_ms = min(first.end_ms, later.end_ms)
            both_ms = end_ms - later.start_ms
            if end_ms < ended_before_ms and both_ms >= INTERRUPTION_MS and _can_interrupt(later, first):
                counted = total.get(later.kind, Interruptions())
                total[later.kind] = Interruptions(counted.count + 1, counted.total_ms + both_ms)
    return total


def _can_interrupt(later: Turn, first: Turn) -> bool:
    return (
        first.start_ms != later.start_ms
        and first.speaker != later.speaker
        and first.kind not in _UNINTERRUPTED
        and later.kind not in _UNINTERRUPTED
    )
