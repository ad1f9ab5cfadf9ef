"""Turns, silences and interruptions, one behaviour at a time."""

import msgspec

from callmood.schemas.common import Role
from callmood.worker.call import timeline
from callmood.worker.call.timeline import Interruptions


def _line(*turns, horizon_ms=30_000):
    line = timeline.Timeline(horizon_ms)
    for role, start_ms, end_ms in turns:
        line = timeline.add_speech(line, role, f"0/{role}", start_ms, end_ms)
    return line


def _silences(line):
    return [(silence.start_ms, silence.end_ms) for silence in line.silences]


def test_who_began_later_interrupts():
    """The interrupter is who began later, also when the interrupted utterance is decided last."""
    line = _line((Role.AGENT, 4_000, 6_000), (Role.CUSTOMER, 0, 5_000))
    assert timeline.interruptions(line) == {"agent": Interruptions(1, 1_000)}


def test_a_short_yes_is_no_interruption():
    """Speaking at once for less than half a second interrupts nobody, but it is overlap."""
    line = _line((Role.AGENT, 4_000, 4_499), (Role.CUSTOMER, 0, 6_000))
    assert timeline.interruptions(line) == {}
    assert timeline.figures(line).overlap_ms == 499


def test_half_a_second_is_an_interruption():
    """The shortest interruption is 500 ms long."""
    line = _line((Role.AGENT, 4_000, 4_500), (Role.CUSTOMER, 0, 6_000))
    assert timeline.interruptions(line) == {"agent": Interruptions(1, 500)}
    line = _line((Role.CUSTOMER, 0, 4_500), (Role.AGENT, 4_000, 6_000))
    assert timeline.interruptions(line) == {"agent": Interruptions(1, 500)}


def test_an_episode_counts_from_its_threshold_on():
    """A silence of 3 s and an overlap of 500 ms are the shortest that count."""
    for less_ms, count in ((0, 1), (1, 0)):
        line = _line(
            (Role.AGENT, 0, 4_000), (Role.CUSTOMER, 3_500 + less_ms, 5_000), (Role.AGENT, 8_000 - less_ms, 9_000)
        )
        figures = timeline.figures(line)
        assert (figures.silences.count, figures.silences.total_ms) == (count, count * 3_000)
        assert (figures.overlaps.count, figures.overlaps.total_ms) == (count, count * 500)


def test_a_forced_split_is_no_new_turn():
    """Who goes on after a forced split while being interrupted does not interrupt in return."""
    line = _line((Role.AGENT, 0, 15_000), (Role.CUSTOMER, 14_000, 20_000), (Role.AGENT, 15_000, 30_000))
    assert timeline.interruptions(line) == {"customer": Interruptions(1, 6_000)}


def test_a_turn_at_the_edge_of_the_open_part_can_still_go_on():
    """A turn that ends exactly where the settled part ends is lengthened by the piece that touches it."""
    line = _line((Role.AGENT, 0, 1_000), (Role.CUSTOMER, 300, 4_000), (Role.AGENT, 1_000, 3_900), horizon_ms=3_000)
    assert timeline.interruptions(line) == {"customer": Interruptions(1, 3_600)}


def test_starting_together_interrupts_nobody():
    """Two who begin in the same millisecond do not interrupt each other."""
    assert timeline.interruptions(_line((Role.AGENT, 0, 2_000), (Role.CUSTOMER, 0, 3_000))) == {}


def test_a_machine_is_not_interrupted():
    """Speaking over an IVR is what callers are meant to do."""
    assert timeline.interruptions(_line((Role.IVR, 0, 9_000), (Role.CUSTOMER, 3_000, 5_000))) == {}


def test_two_agents_can_interrupt_each_other():
    """Speakers are told apart by channel, not by role."""
    line = timeline.add_speech(timeline.Timeline(), Role.AGENT, "0/0", 0, 5_000)
    line = timeline.add_speech(line, Role.AGENT, "0/1", 3_000, 6_000)
    assert timeline.interruptions(line) == {"agent": Interruptions(1, 2_000)}


def test_the_time_before_the_first_word_is_silence():
    """A call begins at 0, so the wait for the first word counts."""
    figures = timeline.figures(_line((Role.AGENT, 7_000, 8_000)))
    assert (figures.non_talk_ms, figures.longest_silence_ms) == (7_000, 7_000)


def test_a_silence_counts_whole_although_it_was_settled_in_parts():
    """A silence of several horizons is one silence."""
    line = _line((Role.AGENT, 0, 1_000), (Role.AGENT, 100_000, 101_000), horizon_ms=3_000)
    line = timeline.add_speech(line, Role.AGENT, "0/agent", 104_000, 105_000)
    assert timeline.figures(line).longest_silence_ms == 99_000
    assert _silences(line) == [(1_000, 100_000)]


def test_a_silence_is_known_once_nothing_can_fill_it():
    """Until the horizon has passed, a longer utterance of the other speaker may turn out to have filled the silence."""
    line = _line((Role.AGENT, 0, 1_000), (Role.AGENT, 11_000, 12_000))
    assert _silences(line) == []
    line = timeline.add_speech(line, Role.CUSTOMER, "0/customer", 3_000, 12_500)
    assert _silences(timeline.finish(line, 12_500)) == []


def test_the_newest_long_silences_are_remembered():
    """Silences of 5 s and more, and of those the newest eight."""
    turns = [(Role.AGENT, at_ms, at_ms + 1_000) for at_ms in range(0, 60_000, 6_000)]
    line = timeline.finish(_line(*turns), 58_000)
    assert _silences(line) == [(at_ms + 1_000, at_ms + 6_000) for at_ms in range(6_000, 54_000, 6_000)]


def test_a_call_does_not_end_before_its_newest_utterance():
    """An end that is given too early is moved to the end of what was said."""
    assert timeline.figures(timeline.finish(_line((Role.AGENT, 0, 9_000)), 4_000)).at_ms == 9_000


def test_a_silence_in_two_by_a_pause_is_two():
    """Audio that the producer kept from us ends a silence."""
    line = timeline.add_pause(_line((Role.AGENT, 0, 1_000)), 8_000, 20_000)
    line = timeline.finish(line, 26_000)
    assert _silences(line) == [(1_000, 8_000), (20_000, 26_000)]
    figures = timeline.figures(line)
    assert (figures.redacted_ms, figures.non_talk_ms, figures.longest_silence_ms) == (12_000, 13_000, 7_000)


def test_two_streams_paused_at_once_are_redacted_once():
    """Redacted time is time of the call, not the sum over its streams."""
    line = timeline.add_pause(timeline.add_pause(timeline.Timeline(), 1_000, 5_000), 1_000, 5_000)
    assert timeline.figures(line).redacted_ms == 4_000


def test_speech_from_before_the_horizon_keeps_the_books_balanced():
    """A turn that comes too late is left out of the settled part: talk and silence still add up to the call."""
    line = _line((Role.AGENT, 0, 1_000), (Role.AGENT, 90_000, 91_000), (Role.CUSTOMER, 50_000, 95_000))
    figures = timeline.figures(line)
    assert figures.talk_ms + figures.non_talk_ms == figures.at_ms == 95_000
    assert figures.talk_ms == 1_000 + 95_000 - 61_000


def test_a_call_of_days_stays_small():
    """The state does not grow with the call, however many speak at once for however long."""
    line, largest = timeline.Timeline(), 0
    for number in range(6_000):
        speaker = number % 8
        start_ms = number * 400 + speaker
        line = timeline.add_speech(line, Role.CUSTOMER, f"{speaker}/0", start_ms, start_ms + 3_000)
        largest = max(largest, len(msgspec.msgpack.encode(line)))
    assert largest < 3_000
    assert timeline.figures(line).talk_ms == 5_999 * 400 + 7 + 3_000


def test_any_number_of_open_turns_is_bounded():
    """Turns beyond the bound are settled early instead of growing the state."""
    line = timeline.Timeline()
    for number in range(1_000):
        line = timeline.add_speech(line, Role.AGENT, f"{number}/0", 0, 1_000)
    assert len(line.turns) <= 96


def test_time_that_passes_without_speech_is_silence():
    """Another sound extends the call and closes what lies behind the horizon, as speech would; it never shortens."""
    line = _line((Role.AGENT, 0, 1_000), (Role.CUSTOMER, 200, 900))
    later = timeline.extend(line, 61_000)
    assert (later.end_ms, later.turns, later.closed.at_ms) == (61_000, (), 31_000)
    assert timeline.figures(later).longest_silence_ms == 60_000
    assert timeline.interruptions(later) == timeline.interruptions(line) == {"customer": Interruptions(1, 700)}
    assert timeline.extend(later, 50_000) is later
