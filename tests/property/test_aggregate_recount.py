"""The time line against a straightforward recomputation from the whole list, millisecond by millisecond."""

from itertools import combinations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from callmood.schemas.common import Role
from callmood.worker.call import timeline

_SPEAKERS = ((Role.CUSTOMER, "0/0"), (Role.AGENT, "0/1"), (Role.IVR, "0/2"))
_HORIZON_MS = 4_000
_LONGEST_MS = 3_000  # with the decision's delay still within the horizon


@st.composite
def _speaker(draw, role, speaker):
    """Utterances of one speaker as (decided, role, speaker, start, end): in order, some touching, never overlapping."""
    said, at_ms = [], draw(st.integers(0, 2_000))
    for _ in range(draw(st.integers(0, 12))):
        end_ms = at_ms + draw(st.integers(1, _LONGEST_MS))
        said.append((end_ms + draw(st.sampled_from((0, 500))), role, speaker, at_ms, end_ms))
        at_ms = end_ms + draw(st.one_of(st.just(0), st.integers(501, 3_000), st.integers(5_000, 9_000)))
    return said


@st.composite
def _calls(draw):
    """A call's utterances in the order of their decision, and pauses that nobody speaks in."""
    speakers = [draw(_speaker(role, speaker)) for role, speaker in _SPEAKERS[: draw(st.integers(1, 3))]]
    said = sorted((item for speaker in speakers for item in speaker), key=lambda item: (item[0], item[2]))
    return said, draw(st.integers(0, 8_000))


def _fold(said, line=None):
    line = timeline.Timeline(_HORIZON_MS) if line is None else line
    for _, role, speaker, start_ms, end_ms in said:
        line = timeline.add_speech(line, role, speaker, start_ms, end_ms)
    return line


def _runs(values):
    """Lengths of the unbroken runs."""
    runs = [0]
    for value in values:
        if value:
            runs[-1] += 1
        elif runs[-1]:
            runs.append(0)
    return runs


def _counted(runs, threshold_ms):
    long = [run for run in runs if run >= threshold_ms]
    return len(long), sum(long), max(long, default=0)


def _recount(said, length_ms):
    speakers = sorted({item[2] for item in said})
    speaking = np.zeros((len(speakers), length_ms), dtype=bool)
    for _, _, speaker, start_ms, end_ms in said:
        speaking[speakers.index(speaker), start_ms:end_ms] = True
    at_once = speaking.sum(axis=0)
    return {
        "talk_ms": int((at_once > 0).sum()),
        "overlap_ms": int((at_once > 1).sum()),
        "non_talk_ms": int((at_once == 0).sum()),
        "longest_silence_ms": max(_runs(at_once == 0)),
        "silences": _counted(_runs(at_once == 0), timeline.SILENCE_MS),
        "overlaps": _counted(_runs(at_once > 1), timeline.INTERRUPTION_MS),
    }


def _turns(said):
    """Each speaker's runs of touching utterances."""
    turns = []
    for _, role, speaker, start_ms, end_ms in sorted(said, key=lambda item: (item[2], item[3])):
        if turns and turns[-1][1] == speaker and turns[-1][3] == start_ms:
            turns[-1] = (role, speaker, turns[-1][2], end_ms)
        else:
            turns.append((role, speaker, start_ms, end_ms))
    return turns


def _recount_interruptions(said):
    found = {}
    for one, other in combinations(_turns(said), 2):
        if one[1] == other[1] or one[2] == other[2] or Role.IVR in (one[0], other[0]):
            continue
        first, later = (one, other) if one[2] < other[2] else (other, one)
        both_ms = min(first[3], later[3]) - later[2]
        if both_ms >= timeline.INTERRUPTION_MS:
            count, total_ms = found.get(later[0].value, (0, 0))
            found[later[0].value] = (count + 1, total_ms + both_ms)
    return found


def _figures(line):
    figures = timeline.figures(line)
    names = ("talk_ms", "overlap_ms", "non_talk_ms", "longest_silence_ms")
    episodes = {name: getattr(figures, name) for name in ("silences", "overlaps")}
    counted = {name: (one.count, one.total_ms, one.longest_ms) for name, one in episodes.items()}
    return {name: getattr(figures, name) for name in names} | counted


def _interruptions(line):
    return {role: (found.count, found.total_ms) for role, found in timeline.interruptions(line).items()}


@given(_calls())
def test_figures_at_every_moment_equal_a_recount_of_everything_said_so_far(call):
    """Talk, silence, overlap and interruptions equal a recount after every single utterance."""
    said, _ = call
    line = timeline.Timeline(_HORIZON_MS)
    for number, item in enumerate(said, 1):
        line = _fold([item], line)
        so_far = said[:number]
        assert _figures(line) == _recount(so_far, max(end_ms for *_, end_ms in so_far))
        assert _interruptions(line) == _recount_interruptions(so_far)


@given(_calls())
def test_the_end_of_the_call_adds_the_last_silence_and_changes_nothing_else(call):
    """A finished time line equals a recount up to the call's end, and keeps no turn."""
    said, rest_ms = call
    end_ms = max((end_ms for *_, end_ms in said), default=0) + rest_ms
    line = timeline.finish(_fold(said), end_ms)
    assert line.turns == ()
    assert _figures(line) == (_recount(said, end_ms) if said else _recount([(0, Role.AGENT, "", 0, 0)], end_ms))
    assert _interruptions(line) == _recount_interruptions(said)


@given(_calls(), st.data())
def test_a_time_line_survives_storage_at_any_moment(call, data):
    """Packing and unpacking the state in the middle of a call changes no figure and no later state."""
    said, _ = call
    cut = data.draw(st.integers(0, len(said)))
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(_fold(said[:cut])), type=timeline.Timeline)
    assert _fold(said[cut:], stored) == _fold(said)


@given(_calls(), st.integers(0, 60_000), st.integers(1, 60_000))
def test_a_stretch_without_audio_is_no_silence(call, start_ms, length_ms):
    """A pause or gap takes its time out of the silence only: talk and overlap stay, and all time is accounted for."""
    said, _ = call
    end_ms = start_ms + length_ms
    for add, name in (
        (timeline.add_pause, "redacted_ms"),
        (timeline.add_gap, "missing_ms"),
        (timeline.add_hold, "hold_ms"),
    ):
        without, with_it = (
            _fold(said, timeline.Timeline(10**6)),
            add(_fold(said, timeline.Timeline(10**6)), start_ms, end_ms),
        )
        before, after = timeline.figures(without), timeline.figures(with_it)
        assert getattr(after, name) == length_ms
        assert (after.talk_ms, after.overlap_ms) == (before.talk_ms, before.overlap_ms)
        assert after.at_ms - after.talk_ms - length_ms <= after.non_talk_ms <= after.at_ms - after.talk_ms
        assert after.longest_silence_ms <= max(before.longest_silence_ms, start_ms)
