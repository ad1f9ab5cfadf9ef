"""Spans are a function of the samples: chunking, crashes and restores change nothing."""

from dataclasses import dataclass, field
from functools import cache
from itertools import cycle, pairwise
from typing import NamedTuple

import msgpack
import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcma, encode_pcmu
from callmood.worker.records import Cut
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech.segment import Segmenter, SegmenterState

_ENCODE = {Encoding.PCMU: encode_pcmu, Encoding.PCMA: encode_pcma, Encoding.S16LE: lambda pcm: pcm.tobytes()}
_SILENCE = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.S16LE: b"\0\0"}
_RULES = (
    SegmentSettings(),
    SegmentSettings(max_utterance_s=2.0, split_search_s=0.7, padding_ms=50),
    SegmentSettings(max_utterance_s=1.0, split_search_s=1.0, padding_ms=0, close_window_ms=200, min_utterance_ms=20),
)


class Piece(NamedTuple):
    """One call of a segmenter: audio, concealment, or a close after which `samples` are skipped."""

    kind: str
    first: int
    samples: int

    @property
    def end(self):
        """The first sample after it."""
        return self.first + self.samples


@dataclass(frozen=True)
class Scenario:
    """A channel's life: what is sent, and the native audio of the whole time line."""

    encoding: Encoding
    rate_hz: int
    rules: SegmentSettings
    pieces: tuple[Piece, ...]
    audio: bytes = field(repr=False)

    def new(self):
        """A segmenter at the beginning."""
        return Segmenter(self.encoding, self.rate_hz, self.rules)

    def apply(self, channel, piece):
        """Give a piece to the segmenter."""
        width = self.encoding.bytes_per_sample
        match piece.kind:
            case "audio":
                return channel.feed(piece.first, self.audio[piece.first * width : piece.end * width])
            case "conceal":
                return channel.conceal(piece.samples, piece.first)
            case "silence":
                spans = channel.silence(piece.samples, piece.first)
                channel.move_on(piece.end)
                return spans
            case "end":  # nothing is skipped: what follows is contiguous, but another utterance
                return channel.close(Cut.END)
            case _:
                spans = channel.close(Cut(piece.kind))
                channel.skip_to(piece.end)
                return spans

    def chunked(self, sizes_ms):
        """The pieces, their audio in chunks of these sizes."""
        sizes = cycle(sizes_ms)
        for piece in self.pieces:
            if piece.kind != "audio":
                yield piece
                continue
            first = piece.first
            while first < piece.end:
                samples = min(next(sizes) * self.rate_hz // 1000, piece.end - first)
                yield Piece("audio", first, samples)
                first += samples

    def run(self, sizes_ms, crashes=()):
        """Facts of all spans and the last snapshot; the channel is lost and restored before the chunks in `crashes`."""
        channel, sent, facts = self.new(), [], []
        for piece in self.chunked(sizes_ms):
            if len(sent) in crashes:
                channel = self.recover(channel, sent)
            keep_from = channel.keep_from
            spans = self.apply(channel, piece)
            assert keep_from <= channel.keep_from <= channel.next_sample
            facts += [(span, channel.voiced_ms(span.start_sample, span.end_sample)) for span in spans]
            sent.append(piece)
        facts += [(span, channel.voiced_ms(span.start_sample, span.end_sample)) for span in channel.close(Cut.END)]
        return facts, channel.snapshot()

    def recover(self, lost, sent):
        """The successor of a lost segmenter: restored from its snapshot, and fed again what it still needs."""
        blob = msgpack.packb(lost.snapshot())
        channel = Segmenter.restore(
            self.encoding, self.rate_hz, self.rules, msgspec.convert(msgpack.unpackb(blob), SegmenterState)
        )
        assert len(blob) < 3300
        assert channel.restored_exactly
        assert (channel.keep_from, channel.next_sample) == (lost.keep_from, lost.next_sample)
        needed = next((i for i, piece in enumerate(sent) if piece.end > lost.keep_from), len(sent))
        earlier = max(0, needed - len(sent) % 16)  # a caller may begin further back than it must
        begin = earlier if sent[earlier : earlier + 1] and sent[earlier].kind == "audio" else needed
        assert [span for piece in sent[begin:] for span in self.apply(channel, piece)] == []
        return channel


@cache
def _voice(rate_hz, behind=0):
    """40 s of bursts of a vowel-like sound over noise; some bursts are too short, some too long for one utterance.

    `behind` is the amplitude of the same sound in the background, which hardly stops; bursts are then farther apart.
    """
    random = np.random.default_rng(rate_hz)
    time = np.arange(40 * rate_hz) / rate_hz
    tone = sum(np.sin(2 * np.pi * hz * time) / k for k, hz in enumerate((140, 280, 420, 560, 700, 1400, 2100), 1))
    loudness, at = np.zeros(time.size), 0
    while at < time.size:
        at += int(random.uniform(0.05, 3.0 if behind else 1.2) * rate_hz)
        end = at + int(random.choice((0.05, 0.3, 1.0, 4.0)) * rate_hz)
        loudness[at:end] = random.uniform(0.2, 1.0)
        at = end
    syllables = 1 + 0.5 * np.sin(2 * np.pi * 4 * time)
    loudness += behind / 3000 * (time % 0.45 < 0.3)
    return np.round(tone * loudness * syllables * 3000 + random.normal(0, 30, time.size)).astype(np.int16)


@st.composite
def scenarios(draw):
    encoding = draw(st.sampled_from(list(_ENCODE)))
    rate_hz = draw(st.sampled_from((8000, 16000))) if encoding is Encoding.S16LE else 8000
    first = draw(st.integers(0, 500))
    pieces = [Piece("gap", 0, first)] if first else []
    for _ in range(draw(st.integers(1, 6))):
        pieces.append(Piece("audio", first, draw(st.integers(1, 8 * rate_hz))))
        kind = draw(st.sampled_from(("conceal", "silence", "gap", "pause", "end")))
        longest = {"conceal": 700 * rate_hz // 1000, "end": 0}.get(kind, 2 * rate_hz)
        pieces.append(Piece(kind, pieces[-1].end, draw(st.integers(0, longest))))
        first = pieces[-1].end
    offset = draw(st.integers(0, 3 * rate_hz))
    behind = draw(st.sampled_from((0, 0, 150)))
    audio = bytearray(_ENCODE[encoding](_voice(rate_hz, behind)[offset : offset + first]))
    width = encoding.bytes_per_sample
    for piece in pieces:
        if piece.kind != "audio":
            audio[piece.first * width : piece.end * width] = _SILENCE[encoding] * piece.samples
    return Scenario(encoding, rate_hz, draw(st.sampled_from(_RULES)), tuple(pieces), bytes(audio))


chunk_sizes = st.lists(st.integers(1, 1000), min_size=1, max_size=8)


@settings(max_examples=examples(30))
@given(scenarios(), chunk_sizes)
def test_chunking_changes_nothing(scenario, sizes_ms):
    """Any chunks of 1 ms to 1 s give the spans, audio, votes and state of one whole feed."""
    assert scenario.run(sizes_ms) == scenario.run([60_000])


@settings(max_examples=examples(50))
@given(scenarios(), chunk_sizes, st.sets(st.integers(0, 60), min_size=1))
def test_crashes_change_nothing(scenario, sizes_ms, crashes):
    """A channel that is lost at any moment and restored goes on to the same spans, audio, votes and state."""
    assert scenario.run(sizes_ms, crashes) == scenario.run([60_000])


@settings(max_examples=examples(30))
@given(scenarios())
def test_spans_are_ordered_bounded_and_true(scenario):
    """Spans increase, never overlap, keep the limits, and hold exactly the audio of their samples that came."""
    spans = [span for span, _ in scenario.run([200])[0]]
    width = scenario.encoding.bytes_per_sample
    assert all(earlier.end_sample <= later.start_sample for earlier, later in pairwise(spans))
    for span in spans:
        assert span.start_sample < span.end_sample <= span.decided_sample
        assert span.end_sample - span.start_sample <= scenario.rules.max_utterance_s * scenario.rate_hz
        assert span.start_sample <= span.voiced_start_sample < span.voiced_end_sample <= span.end_sample
        concealed = [range(p.first, p.end) for p in scenario.pieces if p.kind == "conceal"]
        inside = [range(max(span.start_sample, c.start), min(span.end_sample, c.stop)) for c in concealed]
        assert span.missing_samples == sum(map(len, inside))
        audio = bytearray(span.audio)
        for lost in inside:
            first = (lost.start - span.start_sample) * width
            audio[first : first + len(lost) * width] = _SILENCE[scenario.encoding] * len(lost)
        assert audio == scenario.audio[span.start_sample * width : span.end_sample * width]
        cuts = [p for p in scenario.pieces if p.kind not in {"audio", "conceal", "silence"}]
        assert not any(p.first < span.end_sample and span.start_sample < p.end for p in cuts)


@settings(max_examples=examples(10))
@given(st.integers(0, 3000))
def test_the_scenarios_speak(offset):
    """Every stretch of 20 s of the test signal has utterances, or the properties above would say nothing."""
    audio = encode_pcmu(_voice(8000)[offset : offset + 160_000])
    cuts = {span.cut for span in Segmenter(Encoding.PCMU, 8000, _RULES[1]).feed(0, audio)}
    assert cuts == {Cut.SILENCE, Cut.FORCED}


@settings(max_examples=examples(10))
@given(st.integers(0, 3000))
def test_the_scenarios_have_a_background(offset):
    """One that never stops, and from which the voice in front is told."""
    audio = encode_pcmu(_voice(8000, 150)[offset : offset + 160_000])
    spans = Segmenter(Encoding.PCMU, 8000, _RULES[0]).feed(0, audio)
    assert len([before for before, after in pairwise(spans) if before.end_sample == after.start_sample]) > 2
    assert {span.cut for span in spans} == {Cut.SILENCE}


@settings(max_examples=examples(30))
@given(scenarios(), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_what_fits_into_the_room_closes_nothing(scenario, sizes_ms):
    """Records are taken together on this promise."""
    channel, rooms = scenario.new(), []
    for piece in scenario.chunked(sizes_ms):
        room = channel.room
        closed = scenario.apply(channel, piece)
        if piece.kind == "audio":
            assert piece.samples > room or not closed
            rooms.append(room)
    assert max(rooms) >= 0
