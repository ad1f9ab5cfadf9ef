"""One call: its attributes and notice, its length, its idle time, and the times of its results."""

from functools import partial

import numpy as np
from telephony import EPOCH_MS, Leg, heard, log_of, quiet, voice

from callmood.worker.call.call import Call
from callmood.worker.call.checkpoint import Stored
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commands.topics import LARGEST_STATE_BYTES
from callmood.worker.intake import decode
from callmood.worker.settings import PolicySettings, Settings

READ = partial(decode.decode, input_format="headers", max_record_ms=5000)
SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def new(settings=None):
    return Call("call-1", settings or Settings(), DEFAULT_RULES)


def take(call, sent, elapsed_ms=0):
    """Let the call take records; returns the utterances for the model."""
    chunks = [READ(record) for record in log_of(sent, first_offset=call.last_offset + 1)]
    return [u for chunk in chunks for u in call.take(chunk, elapsed_ms=elapsed_ms, now_ms=0.0).utterances]


def answer(call, *utterances):
    for utterance in utterances:
        call.answer(utterance.id, heard(utterance.audio), 5.0)


def commit(call):
    """Commit what is due; returns the results."""
    due = call.due()
    call.confirm(due)
    return due.results


def test_a_notice_that_is_withdrawn_counts():
    """The newest word of the producer decides whether the model may hear."""
    call, leg = new(Settings(policy=PolicySettings(require_notice=True))), Leg()
    given = [leg.send("start", notice="given"), *leg.media(SENTENCE)]
    withdrawn = [leg.send("start", notice="not_given"), *leg.media(SENTENCE)]
    assert [utterance.withheld for utterance in take(call, [*given, *withdrawn])] == [None, "policy:no_notice"]


def test_an_utterance_says_when_it_was_said_and_where_it_belongs():
    """It has the capture time of its start, and the reserved attributes known when it ended."""
    call, leg = new(), Leg()
    first = take(call, [leg.send("start", **{"attr.queue": "sales", "attr.colour": "red"}), *leg.media(SENTENCE)])
    second = take(call, [leg.send("start", **{"attr.queue": "billing"}), *leg.media(SENTENCE)])
    assert [u.attributes for u in (*first, *second)] == [{"queue": "sales"}, {"queue": "billing"}]
    assert [u.spoken_at_ms - u.start_ms for u in (*first, *second)] == [EPOCH_MS, EPOCH_MS]


def test_attributes_that_came_later_are_not_in_an_utterance_that_is_cut_again():
    """A successor that reads the records again gives it those that it had."""
    call, leg = new(), Leg()
    begun = [leg.send("start", **{"attr.queue": "sales"}), *leg.media(quiet(0.6) + voice(1))]
    take(call, begun)
    commit(call)
    rest = [*leg.media(quiet(1)), leg.send("start", **{"attr.queue": "billing"})]
    (utterance,) = take(call, rest)
    successor = Call.restore("call-1", call.due().saved.blob, Settings(), DEFAULT_RULES)
    chunks = [READ(record) for record in log_of([*begun, *rest], first_offset=0)]
    (again,) = [u for chunk in chunks for u in successor.take(chunk, elapsed_ms=0, now_ms=0.0).utterances]
    assert again.attributes == utterance.attributes == {"queue": "sales"}


def test_a_call_is_as_long_as_its_longest_stream():
    """The other leg may have hung up long before."""
    long, short = Leg(stream="long"), Leg(stream="short")
    call = new()
    answer(
        call,
        *take(call, [*short.media(quiet(1)), *long.media(SENTENCE * 2), *(leg.send("end") for leg in (short, long))]),
    )
    commit(call)
    summary = call.fold.summary({"emotion_roles": [], "require_notice": False, "legal_basis": None}, None)
    assert summary["duration_ms"] == 5_200


def test_a_stream_that_is_joined_late_is_not_shifted():
    """Where its first records are lost, its media time says when it began."""
    whole, late = Leg(stream="late"), Leg(stream="late")
    starts = []
    for leg, lost in ((whole, 0), (late, 20)):
        call, other = new(), Leg(stream="other")
        found = take(call, [*other.media(quiet(0.2)), *leg.media(SENTENCE, chunk_ms=20)[lost:]])
        starts.append([(utterance.start_ms, utterance.end_ms) for utterance in found])
    assert starts[0] == starts[1] != []


def test_a_copy_keeps_no_call_alive():
    """A producer that repeats itself for ever has nothing more to say."""
    call, leg = new(), Leg()
    sent = leg.media(quiet(0.4))
    take(call, sent, elapsed_ms=1_000)
    take(call, sent, elapsed_ms=50_000)
    assert (call.seen_at_ms, call.active_at_ms) == (1_000, 1_000)


def test_a_result_knows_when_it_was_decided_and_when_it_was_known():
    """The stages of its latency are the time to the close, at the model and to the commit."""
    call = new()
    answer(call, *take(call, Leg().media(SENTENCE)))
    (released,) = commit(call)
    assert (released.decided_ms, released.known_ms) == (0.0, 5.0)


def test_the_largest_state_fits_into_a_record():
    """As many streams as may be open, of 8 channels, as many stalled ones, and all attributes in long characters."""
    wide = "\N{GRINNING FACE}"
    call, layout = new(), ",".join(["customer"] * 8)
    attributes = {f"attr.{wide * 250}{n}": wide * 256 for n in range(64)}
    take(call, [Leg(stream="0").send("start", **attributes)])
    audio = np.repeat(np.frombuffer(quiet(0.3) + voice(0.7), np.uint8)[:, None], 8, axis=1).tobytes()
    for name in "xy":
        if name == "y":
            call.stall(1_000, 0.0)
        legs = [Leg(stream=name * 60 + str(n), layout=layout) for n in range(63)]
        for records in zip(*(leg.media(audio, chunk_ms=500) for leg in legs), strict=True):
            take(call, records, elapsed_ms=1_000 if name == "x" else 9_000)
    saved = Stored(call._checkpoint_now(), call.fold.save(), call.last_offset).pack()
    assert 400_000 < len(saved) < LARGEST_STATE_BYTES
