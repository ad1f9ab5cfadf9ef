"""Records that a call takes together lead to the state that they lead to one by one."""

import pytest
from telephony import Leg, Worker, behind, both, in_time, log_of, quiet, voice

from callmood.worker.call.call import Call

SAID = quiet(0.3) + voice(0.7) + quiet(1.2)


def plain():
    return Leg().media(SAID, 20)


def two_streams():
    """The next record of one has the number with which the other would go on."""
    other = Leg(stream="1")
    start = other.send("start")
    return [start, *in_time(Leg().media(SAID, 20), other.media(quiet(1) + voice(1.2), 20))]


def news():
    """A notice and an attribute that come with audio."""
    sent = Leg().media(SAID, 20)
    for index, header in ((30, ("notice", "given")), (62, ("attr.queue", "sales")), (63, ("attr.queue", "sales"))):
        sent[index] = sent[index]._replace(headers={**sent[index].headers, header[0]: header[1]})
    return sent


def other_roles():
    """The channels change their roles on the same stream."""
    leg = Leg(layout="customer,agent")
    sent = leg.media(both(quiet(0.5), quiet(0.5)), 20)
    leg.layout = "agent,customer"
    return [*sent, *leg.media(both(SAID, quiet(2.2)), 20)]


def television():
    """A voice in front of another one that hardly stops: an utterance ends where only the other one is left."""
    return Leg().media(behind(12, [(1.0, 2.0), (6.0, 3.0)], quieter_db=24), 20)


def long_records():
    """Speech ends in the middle of what could be taken together."""
    return [item for ms in (20, 100, 400) for item in Leg(stream=str(ms)).media(SAID, ms)]


def muted():
    """Words between digital silence, which the detector does not prolong: a moment of speech is late in a silence."""
    frame, said, words = 160, voice(2), quiet(0.4)
    for spoken, pause in ((6, 6), (6, 5), (7, 10), (6, 15)):
        words += said[: spoken * frame] + b"\xff" * (pause * frame) + said[:frame] + b"\xff" * (40 * frame)
    return Leg().media(words, 40)


def lossy():
    """Numbers are missing, and one record comes twice."""
    sent = Leg().media(SAID, 20)
    return [*sent[:20], *sent[22:50], sent[49], *sent[50:]]


def late():
    """Without media times, records come later and later, until the clock of the samples is corrected."""
    sent = Leg(has_media_ms=False).media(quiet(3), 20)
    return [item._replace(at_ms=item.at_ms + 0.9 * index) for index, item in enumerate(sent)]


def jittery():
    """Every third record is stamped later than the next ones."""
    sent = Leg().media(SAID, 20)
    return [item._replace(at_ms=item.at_ms + 70 * (index % 3 == 0)) for index, item in enumerate(sent)]


def other_events():
    """A gap, a hold and a silence between audio."""
    leg, sent = Leg(), []
    for event in ("hold", "unhold", "silence"):
        sent += [*leg.media(quiet(0.3), 20), leg.send(event)]
    return [*sent, *leg.media(SAID, 20), leg.send("end")]


CASES = [plain, two_streams, news, other_roles, television, long_records, muted, lossy, late, jittery, other_events]


def stored(records, step):
    """States, watermarks, utterances and deadlines after every so many records."""
    worker, found = Worker(), []
    for first in range(0, len(records), step):
        worker.read(records[first : first + step])
        worker.partition.restore_store((), all_states=True)
        store = worker.commit()
        found.append((dict(store.states), store.watermark, len(store.utterances), worker.partition.open_records))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_together_is_as_one_by_one(case, monkeypatch):
    """Every state that is stored on the way is the same, byte by byte."""
    records = log_of(case())
    together = stored(records, 23)
    monkeypatch.setattr(Call, "series", lambda *_: None)
    assert stored(records, 23) == together


@pytest.mark.plain_python
def test_some_records_are_taken_together(monkeypatch):
    """Otherwise the comparison would compare nothing."""
    lengths, take = [], Call.take_series
    monkeypatch.setattr(
        Call, "take_series", lambda call, series: (lengths.append(len(series.chunks)), take(call, series))
    )
    stored(log_of(plain()), 23)
    assert max(lengths) > 10


def test_what_waits_is_limited():
    """To 25 records of a stream and four streams of a call: it takes memory, and a fault of ours costs all of it."""
    legs = [Leg(stream=str(number)) for number in range(6)]
    first = [leg.send("media", quiet(0.02)) for leg in legs]
    worker, waited = Worker().read(log_of(first)), []
    for record in log_of(in_time(*(leg.media(quiet(1), 20) for leg in legs)), first_offset=len(first)):
        worker.read([record])
        waited.append([len(one.records) for one in worker.partition._calls["call-1"].waiting.values()])
    assert max(map(len, waited)) == 4
    assert max(max(lengths, default=0) for lengths in waited) <= 25
    alone, lengths = Worker().read(log_of(legs[0].media(quiet(0.02)))), []
    for record in log_of(legs[0].media(quiet(2), 20), first_offset=1):
        alone.read([record])
        lengths += [len(one.records) for one in alone.partition._calls["call-1"].waiting.values()]
    assert max(lengths) == 25


def test_audio_after_an_end_that_waits_for_lost_records_makes_the_call_live_again():
    """Its first record does, although it holds back nothing and closes nothing."""
    leg = Leg()
    said = leg.media(SAID, 20)
    leg.lose(200, record_ms=20)
    said.append(leg.send("end"))
    assert Worker().read(log_of(said)).commit().calls["call-1"]["status"] == "completed"
    said += leg.media(quiet(0.02), 20)
    assert Worker().read(log_of(said)).commit().calls["call-1"]["status"] == "live"
