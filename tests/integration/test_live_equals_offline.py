"""What stands in Redis after calls went over Kafka is what `callmood analyze` says of the same files."""

import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest

from callmood.schemas.common import Encoding

pytestmark = pytest.mark.timeout(240)


def _callmood(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "callmood", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _named(recordings):
    """The recordings under call ids of their own."""
    return {f"{name}-{uuid4().hex[:8]}": recording for name, recording in recordings.items()}


def test_concurrent_calls_by_the_commands_of_the_manual(running, recorded):
    """Files that `callmood replay` sends side by side come out as `callmood analyze` says, field by field."""
    files = [call.path for call in recorded.all().values()]
    common = ("--call-id", f"manual-{uuid4().hex[:8]}", "--attr", "queue=billing", "--notice", "given")
    where = {
        "CALLMOOD_KAFKA__BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "CALLMOOD_KAFKA__AUDIO_TOPIC": running.audio_topic,
    }
    call_ids = _callmood(where, "replay", *files, *common, "--speed", "0", "--quiet")
    lines = [json.loads(line) for line in _callmood({"CALLMOOD_MODEL__DEVICE": "cpu"}, "analyze", *files, *common)]
    said = {call_id: [line for line in lines if line["call_id"] == call_id] for call_id in call_ids}
    assert len(call_ids) == len(files) >= 3

    judged = running.judged_by({call_id: (lines[:-1], lines[-1]) for call_id, lines in said.items()})
    judged.assert_exact(dict.fromkeys(call_ids))
    assert {running.call(call_id)["attributes"]["queue"] for call_id in call_ids} == {"billing"}
    for call_id in call_ids:
        assert {utterance["role"] for utterance in running.utterances(call_id)} == {"customer", "agent"}


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "chunk_ms"),
    [
        (Encoding.PCMU, 8000, 20),
        (Encoding.PCMU, 16000, 1000),
        (Encoding.PCMA, 8000, 1000),
        (Encoding.PCMA, 16000, 200),
        (Encoding.S16LE, 8000, 200),
        (Encoding.S16LE, 16000, 20),
        (Encoding.S16BE, 8000, 137),
    ],
    ids=str,
)
def test_every_format_and_record_length(running, recorded, encoding, rate_hz, chunk_ms):
    """Codec, rate and record length on the wire change nothing between the live and the offline result."""
    recordings = recorded.all(encoding=encoding, rate_hz=rate_hz, chunk_ms=chunk_ms)
    calls = _named({name: recordings[name] for name in recorded.names[:2]})
    running.send(calls)
    running.assert_exact(calls)


def test_record_length_does_not_change_the_utterances(running, recorded):
    """The same call in records of 20 ms, 200 ms and 1 s gives the same utterances and the same aggregate."""
    name = recorded.names[-1]
    calls = {f"{name}-{ms}-{uuid4().hex[:8]}": recorded.call(name, chunk_ms=ms) for ms in (20, 200, 1000)}
    running.send(calls)
    running.assert_exact(calls)
    heard = [[(u["channel"], u["start_ms"], u["end_ms"]) for u in running.utterances(call)] for call in calls]
    assert heard[0] == heard[1] == heard[2]
