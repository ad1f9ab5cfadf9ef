"""Counts and log lines of durable commits."""

from structlog.testing import capture_logs
from telephony import STAMPS, Leg, Worker, log_of, quiet, voice

from callmood.schemas.common import Encoding
from callmood.worker import metrics
from callmood.worker.g711 import encode_pcma, to_s16
from callmood.worker.run.account import account

SENTENCE = quiet(0.6) + voice(1.4) + quiet(1)


def _as_pcma(audio: bytes) -> bytes:
    return encode_pcma(to_s16(Encoding.PCMU, audio))


def test_a_call_with_a_wrong_encoding_is_logged_once():
    """Every utterance is counted, and only the first commit that has one is logged."""
    leg, worker, logged = Leg(), Worker(), []
    count = metrics.DOUBTFUL_FORMAT.labels("pcma")
    before = count._value.get()
    for audio in (_as_pcma(SENTENCE), _as_pcma(SENTENCE * 2), SENTENCE):
        first = leg.seq
        worker.read(log_of(leg.media(audio), first_offset=first)).answer()
        commit = worker.partition.collect(STAMPS, 0.0)
        worker.partition.confirm(commit)
        with capture_logs() as lines:
            account(commit)
        logged.append([line["looks_like"] for line in lines if line["event"] == "audio looks wrongly encoded"])
    assert logged == [["pcma"], [], []]
    assert count._value.get() - before == 3


def test_an_end_is_counted_once():
    """An `end` that waits for lost audio ends the call at once, and again when its wait is over."""
    leg, other, ended = Leg(), Leg("other"), metrics.CALLS_ENDED.labels("end")
    sent = leg.media(SENTENCE + quiet(1))[:-5]
    sent = [*sent, leg.send("end"), *other.media(quiet(10))]
    worker, statuses, before = Worker(), [], ended._value.get()
    for record in log_of(sent):
        worker.read([record]).answer()
        commit = worker.partition.collect(STAMPS, 0.0)
        worker.partition.confirm(commit)
        account(commit)
        statuses += [call.summary["status"] for call in commit.calls if call.summary and call.call_id == "call-1"]
    assert statuses[-2:] == ["completed", "completed"]
    assert ended._value.get() - before == 1
