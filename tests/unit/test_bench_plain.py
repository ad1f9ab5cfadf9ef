"""The plain loop that callmood is compared with, and the Quix Streams application that uses its parts."""

import json
import sys
from types import SimpleNamespace

import pytest

from callmood.bench import plain, quix, sender
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings


def test_the_plain_loop_cuts_after_half_a_second_of_silence():
    """The example calls give utterances that end where their last voiced frame does."""
    channel, ended = plain.Channel(), []
    pcm = plain.to_s16(plain.Encoding.PCMU, sender.voices()[: 2 * 8_000 * 40 : 2]).tobytes()
    for number in range(len(pcm) // 3_200):
        found = channel.feed(pcm[number * 3_200 : (number + 1) * 3_200], number * 200.0)
        if found is not None:
            ended.append((number * 200.0 + 200, *found))
    assert len(ended) > 3
    assert all(480 <= now_ms - last_word_ms <= 720 and len(audio) > 3_840 for now_ms, audio, last_word_ms in ended)
    for _, audio, last_word_ms in ended:
        assert pcm[: 16 * round(last_word_ms + 100)].endswith(audio), "the model gets 100 ms of the silence"


def test_each_call_has_its_own_speech():
    """Two calls that speak at the same time are cut as if each were alone."""
    pcmu = sender.voices()[: 2 * 8_000 * 40 : 2]
    channels, found = plain.Channels(), {b"a": [], b"b": []}
    for first in range(0, len(pcmu), 1_600):
        for key, ended in found.items():
            ended.append(channels.feed(key, pcmu[first : first + 1_600], first / 8))
    assert found[b"a"] == found[b"b"]
    assert any(found[b"a"])


def test_without_a_model_nothing_is_computed():
    """The label is empty."""
    assert plain.labeller(plain.NO_MODEL)(bytes(320)) == ""


def test_an_utterance_is_written_to_a_stream_of_the_prefix(monkeypatch):
    """The entry has the call, the time of its last word, and the label."""
    written = []
    redis = SimpleNamespace(xadd=lambda key, fields: written.append((key, json.loads(fields["json"]))))
    monkeypatch.setattr(plain, "connect", lambda *_, **__: redis)
    plain.writer(Settings())(b"call-1", 5.0, "anger")
    assert written == [("{callmood}:plain", {"call_id": "call-1", "last_word_ms": 5.0, "label": "anger"})]


class _Frame:
    """Applies functions to records as Quix Streams does."""

    def __init__(self):
        self.steps = []

    def _add(self, kind, step, *, metadata=False):
        self.steps.append((kind, step, metadata))
        return self

    def apply(self, step, **how):
        return self._add("apply", step, **how)

    def filter(self, step, **how):
        return self._add("filter", step, **how)

    def update(self, step, **how):
        return self._add("update", step, **how)

    def give(self, value, key, timestamp):
        for kind, step, metadata in self.steps:
            made = step(value, key, timestamp, []) if metadata else step(value)
            if kind == "filter" and not made:
                return
            value = made if kind == "apply" else value


def test_the_application_cuts_labels_and_writes(monkeypatch):
    """It writes the utterances that the plain loop cuts from the same records."""
    frame, written, expected = _Frame(), [], []

    class Application:
        def __init__(self, **how):
            assert how["auto_offset_reset"] == "latest"

        def topic(self, name, **_):
            return name

        def dataframe(self, _):
            return frame

    monkeypatch.setitem(sys.modules, "quixstreams", SimpleNamespace(Application=Application))
    monkeypatch.setattr(quix, "writer", lambda _: lambda *said: written.append(said))
    quix.application(Settings(), plain.NO_MODEL)
    channels, pcmu = plain.Channels(), sender.voices()[: 2 * 8_000 * 40 : 2]
    for first in range(0, len(pcmu), 1_600):
        record = pcmu[first : first + 1_600]
        frame.give(record, b"call-1", first // 8)
        if (ended := channels.feed(b"call-1", record, first // 8)) is not None:
            expected.append((b"call-1", ended.last_word_ms, ""))
    assert written == expected != []


def test_without_quix_streams_the_error_says_what_to_install(monkeypatch):
    """The package is optional."""
    monkeypatch.setitem(sys.modules, "quixstreams", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'callmood\[bench\]'"):
        quix.application(Settings(), plain.NO_MODEL)
