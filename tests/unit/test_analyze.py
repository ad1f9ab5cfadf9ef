"""Recorded calls through the worker's own stages, without Kafka and Redis."""

import argparse
import json

import numpy as np
import pytest
import soundfile
import torch
import transformers
from telephony import both, quiet, voice

from callmood.schemas.call import Call
from callmood.schemas.utterance import Utterance
from callmood.worker import g711
from callmood.worker.commands import analyze
from callmood.worker.commands.recordings import Shape, load
from callmood.worker.engine.check import Listener
from callmood.worker.errors import ModelError
from callmood.worker.model.model import EmotionModel, Release, save_bundle
from callmood.worker.settings import ModelSettings, Settings

CONFIG = transformers.HubertConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=[8] * 7,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small model with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(EmotionModel.new(CONFIG.to_dict()).eval(), folder, Release("tiny", "1", "r"))
    return str(folder)


@pytest.fixture
def call(tmp_path):
    """A customer who speaks twice and an agent who speaks once."""
    customer = quiet(0.6) + voice(1) + quiet(2.4) + voice(1) + quiet(1)
    agent = quiet(2) + voice(1.4) + quiet(2.6)
    samples = g711.PCMU_TO_S16[np.frombuffer(both(customer, agent), np.uint8)].reshape(-1, 2)
    soundfile.write(tmp_path / "call.wav", samples, 8000)
    return tmp_path / "call.wav"


@pytest.fixture
def command(bundle, monkeypatch, capsys):
    """Runs the command: its exit code, its lines and what it said on stderr."""
    monkeypatch.setenv("CALLMOOD_MODEL__PATH", bundle)
    monkeypatch.setenv("CALLMOOD_MODEL__DEVICE", "cpu")
    monkeypatch.setenv("CALLMOOD_MODEL__SPEECH_CHECK", "false")  # the voice of the tests is no person's

    def run(*words):
        parser = argparse.ArgumentParser()
        analyze.add_arguments(parser)
        code = analyze.run(parser.parse_args([str(word) for word in words]))
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return run


def test_the_records_are_those_of_the_worker(command, call):
    """One legal utterance/1 a line, then the final call/1; the agent's emotion is withheld."""
    code, lines, _ = command(call, "--attr", "queue=sales", "--notice", "given")
    *utterances, summary = map(json.loads, lines)
    assert code == 0
    assert [Utterance.model_validate(u).role for u in utterances] == ["customer", "agent", "customer"]
    assert [u["emotion"] is None for u in utterances] == [False, True, False]
    assert {u["source"] for u in utterances} == {None}
    assert (summary["status"], summary["attributes"], summary["notice"]) == ("completed", {"queue": "sales"}, "given")
    assert Call.model_validate(summary).utterances == 3
    assert summary["duration_ms"] == 6_000


def test_the_length_of_the_records_changes_nothing(call, bundle):
    """Chunks of 20 ms and of 1 s give the same analysis."""
    listener = Listener.open(ModelSettings(path=bundle, device="cpu"))
    short, long = (
        analyze.analyze(load(call, Shape(chunk_ms=chunk_ms)), "c", listener, Settings()) for chunk_ms in (20, 1_000)
    )
    assert short[0] == long[0]
    assert {**short[1], "version": 0} == {**long[1], "version": 0}


def test_the_table_is_for_people(command, call):
    """A row per utterance with what was heard, or why nothing was."""
    code, lines, _ = command(call, "--format", "table", "--call-id", "my-call")
    assert code == 0
    text = "\n".join(lines)
    assert "my-call, 6.0 s" in text
    assert text.count("customer") == 2
    assert "role_agent" in text


def test_a_file_of_the_other_law_is_told(command, tmp_path):
    """A-law in a file with the name of mu-law gives a notice that counts the utterances."""
    samples = g711.PCMU_TO_S16[np.frombuffer(quiet(0.6) + voice(2) + quiet(1), np.uint8)]
    for name, is_told in (("call.ulaw", True), ("call.alaw", False)):
        (tmp_path / name).write_bytes(g711.encode_pcma(samples))
        code, lines, said = command(tmp_path / name)
        assert code == 0
        assert ("1 like pcma: check its encoding, or --raw" in said) is is_told
        assert json.loads(lines[-1])["doubtful_format"] == is_told


def test_one_bad_file_does_not_keep_the_others(command, call, tmp_path):
    """It is named on stderr, the others are analyzed, and the exit code tells."""
    code, lines, said = command(tmp_path / "missing.wav", call)
    assert code == 2
    assert "missing.wav" in said
    assert json.loads(lines[-1])["call_id"] == "call"


def test_a_call_in_which_nobody_speaks_is_complete(command, tmp_path):
    """Silence has no utterances, and is a call nevertheless."""
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 8000)
    code, (line,), _ = command(tmp_path / "silence.wav")
    assert code == 0
    assert (json.loads(line)["utterances"], json.loads(line)["non_talk_ms"]) == (0, 2_000)


def test_without_a_model_nothing_is_analyzed(command, call, monkeypatch):
    """The error names the folder that is missing."""
    monkeypatch.setenv("CALLMOOD_MODEL__PATH", "/nowhere")
    with pytest.raises(ModelError, match="nowhere"):
        command(call)
