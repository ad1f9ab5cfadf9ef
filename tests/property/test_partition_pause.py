"""What a caller says while the producer has paused is never heard."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telephony import Leg, Sent, Worker, log_of, quiet, voice
from thorough import examples

SECRET = bytes(byte | 1 for byte in voice(30))
PUBLIC = bytes(byte & 0xFE for byte in voice(30))
CONCEALED = 0xFF


def call(random: Random) -> list[Sent]:
    """Speech with pauses anywhere; what the gateway sends nevertheless in a pause has the lowest bit of each sample."""
    leg = Leg(has_media_ms=random.random() < 0.7)
    sent = [leg.send("start")] if random.random() < 0.5 else []
    for number in range(random.randint(1, 8)):
        said = SECRET if number % 2 else PUBLIC
        if number:
            sent.append(leg.send("pause" if number % 2 else "resume"))
        if number % 2 == 0 or random.random() < 0.7:
            sent += leg.media(said[: random.randint(1, 8 * 4_000)], chunk_ms=random.choice([7, 20, 200, 1_000]))
        leg.skip(random.choice([0, 0, 100, 5_000]))
        if number % 2 and random.random() < 0.3:
            sent.append(leg.send("pause"))  # said twice
        if number % 2 and random.random() < 0.3:
            sent.append(leg.send("gap", discarded_ms=str(random.choice([20, 200, 2_000]))))
    return [*sent, leg.send("end")] if random.random() < 0.5 else sent


def is_waited_for(sent: list[Sent], index: int) -> bool:
    """Whether the next records may overtake this one without that it is given up."""
    following = sent[index + 1 : index + 5]
    return {item.headers["event"] for item in following} == {"media"} and following[-1].at_ms - sent[
        index
    ].at_ms < 1_500


def disturbed(random: Random, sent: list[Sent]) -> list[Sent]:
    """Late, doubled and lost records; a pause is never lost, and only overtaken while it is waited for."""
    arrived = []
    for index, item in enumerate(sent):
        dice, event = random.random(), item.headers["event"]
        if dice < 0.02 and event == "media":
            continue
        late = 0.0
        if dice > 0.9:
            late = random.choice([1.5, 3.5, 15.5]) if event != "pause" else 3.5 * is_waited_for(sent, index)
        arrived.append((index + late, item))
        if dice > 0.97:
            arrived.append((index + 40, item))
    return [item for _, item in sorted(arrived, key=lambda entry: entry[0])]


@pytest.mark.timeout(300)
@settings(max_examples=examples(100))
@given(seed=st.integers(0, 2**32))
def test_paused_audio_reaches_no_utterance(seed):
    """No sample that was spoken in a pause is in an utterance, whatever the order in which the records come."""
    random = Random(seed)
    log = log_of([*disturbed(random, call(random)), *Leg("other").media(quiet(12), chunk_ms=1_000)])
    worker = Worker()
    while log:
        lived = random.randint(1, max(200, len(log)))
        worker.read(log[:lived])
        spoken = b"".join(utterance.audio for utterance in worker.waiting)
        assert not [byte for byte in spoken if byte & 1 and byte != CONCEALED]
        store = worker.commit()
        log = [record for record in log if record.position.offset >= store.watermark] if lived < len(log) else []
        worker = Worker(store)  # killed and started again
