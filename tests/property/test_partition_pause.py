"""What is said while the producer has paused the call is never heard."""

from random import Random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telephony import RATE_HZ, Leg, Sent, Worker, in_time, log_of, quiet, voice
from thorough import examples

from callmood.worker.speech import conceal

SECRET = np.frombuffer(voice(10), np.uint8) | 1
PUBLIC = np.frombuffer(voice(10), np.uint8) & 0xFE
CONCEALED = 0xFF


def speech(random: Random, *, is_secret: bool) -> bytes:
    """Up to 2 s of voice; the lowest bit of each sample tells what must not be heard."""
    return (SECRET if is_secret else PUBLIC)[: random.randint(1, 2 * RATE_HZ)].tobytes()


def call(random: Random) -> list[Sent]:
    """Speech on one or two legs with pauses anywhere; either leg pauses and resumes, and sends audio nevertheless."""
    legs = [Leg(stream=str(number), has_media_ms=random.random() < 0.7) for number in range(random.randint(1, 2))]
    sent = [legs[0].send("start")] if random.random() < 0.5 else []
    for number in range(random.randint(1, 8)):
        is_secret = bool(number % 2)
        if random.random() < 0.1:  # a reconnect; the streams before it have stalled or go on
            legs[0] = Leg(stream=f"again-{number}", start_ms=legs[0].start_ms + legs[0].media_ms)
        if number:
            sent.append(random.choice(legs).send("pause" if is_secret else "resume"))
        if not is_secret or random.random() < 0.7:
            chunk_ms = random.choice([20, 60, 200, 1_000])
            sent += in_time(*(leg.media(speech(random, is_secret=is_secret), chunk_ms) for leg in legs))
        silent_ms = random.choice([0, 0, 100, 5_000])
        for leg in legs:
            leg.skip(silent_ms)
        if is_secret and random.random() < 0.3:
            sent.append(random.choice(legs).send("pause"))  # sent twice
        if is_secret and random.random() < 0.3:
            sent.append(random.choice(legs).send("gap", discarded_ms=str(random.choice([20, 200, 2_000]))))
    return [*sent, legs[0].send("end")] if random.random() < 0.5 else sent


def is_waited_for(sent: list[Sent], index: int) -> bool:
    """Whether the next records may overtake this one and the worker still waits for it."""
    following = sent[index + 1 : index + 5]
    is_media = {item.headers["event"] for item in following} == {"media"}
    return is_media and following[-1].at_ms - sent[index].at_ms < 1_500


def disturbed(random: Random, sent: list[Sent]) -> list[Sent]:
    """Late, doubled and lost records. A pause is never lost, and only overtaken while the worker waits for it.

    With several streams, none of which knows the order of another, no record overtakes a pause or a resume.
    """
    has_order = len({item.headers["stream"] for item in sent}) == 1
    arrived, part = [], 0
    for index, item in enumerate(sent):
        dice, event = random.random(), item.headers["event"]
        is_switch = event in ("pause", "resume")
        part += is_switch and not has_order
        if dice < 0.02 and event == "media":
            continue
        late = random.choice([1.5, 3.5, 15.5]) if dice > 0.9 and (has_order or not is_switch) else 0.0
        if late and event == "pause":
            late = 3.5 * is_waited_for(sent, index)
        arrived.append((part, index + late, item))
        if dice > 0.97:
            arrived.append((part, index + 40.0, item))
    return [item for _, _, item in sorted(arrived, key=lambda entry: entry[:2])]


@pytest.mark.plain_python
@pytest.mark.timeout(300)
@settings(max_examples=examples(50))
@given(seed=st.integers(0, 2**32))
@patch.object(conceal, "fill", lambda _encoding, _rate_hz, audio, _lost: audio)
def test_paused_audio_reaches_no_utterance(seed):
    """No sample that was sent in a pause is in an utterance of any stream, whatever is lost, doubled or late.

    What is lost stays silent here: the sound that fills it is made of the utterance, and would hide the lowest bits.
    """
    random = Random(seed)
    log = log_of([*disturbed(random, call(random)), *Leg("other").media(quiet(12), chunk_ms=1_000)])
    worker = Worker()
    while log:
        lived = random.randint(1, max(200, len(log)))
        worker.read(log[:lived])
        for utterance in worker.waiting:
            samples = np.frombuffer(utterance.audio, np.uint8)
            assert not (samples & 1)[samples != CONCEALED].any()
        store = worker.commit()
        log = [record for record in log if record.position.offset >= store.watermark] if lived < len(log) else []
        worker = Worker(store)  # killed and started again
