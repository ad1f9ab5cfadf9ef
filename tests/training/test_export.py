"""Bundles: the worker gives the same answers as the training measured."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from callmood.schemas.common import EMOTIONS, Emotion, Encoding
from callmood.training import config, manifest
from callmood.training.evaluate import evaluate, softmax
from callmood.training.loop import train
from callmood.training.loop.data import Clip
from callmood.training.options import CalibrationConfig
from callmood.training.results import export, other_sounds
from callmood.worker.model import audio, checkpoints
from callmood.worker.model.model import EmotionModel, load


@pytest.fixture(scope="module")
def exported(
    tones: dict[str, list[Clip]], tiny: config.Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EmotionModel, dict, Path]:
    """A model that was trained a little and exported: the model, the report, the folder."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(1)
    model = EmotionModel.new(tiny.model.encoder)
    epochs = train.train(model, tiny, tones["train"], tones["valid"])
    items = [
        manifest.Item(f"{split}{i}", "", "tones", f"{split}-{i}", "none", Emotion.ANGER, split, clip.seconds)
        for split, clips in tones.items()
        for i, clip in enumerate(clips)
    ]
    provenance = export.Provenance("callmood-train test", items, epochs, {})
    return model, export.export(model, tiny, tones, provenance, folder), folder


def test_the_loaded_bundle_answers_as_the_trained_model(exported, tones: dict[str, list[Clip]]):
    """After export and load, probabilities equal the trainer's, on the worker's own audio path."""
    model, report, folder = exported
    loaded = load(folder)
    logits, _ = train.predict(model, tones["test"], batch_size=8)
    for clip, trained in zip(tones["test"], logits, strict=True):
        with torch.inference_mode():
            served = loaded(*audio.prepare([(Encoding.S16LE, clip.rate_hz, clip.audio)])).numpy()
        temperature = loaded.calibration.temperature
        assert temperature == report["calibration"]["temperature"]
        np.testing.assert_allclose(softmax(served, temperature)[0], softmax(trained[None], temperature)[0], atol=1e-5)


def test_the_bundle_states_its_name_digest_and_calibration(exported, tiny: config.Config):
    """The bundle's own words and the report's are the same."""
    _, report, folder = exported
    loaded = load(folder)
    assert (loaded.info.id, loaded.info.version) == (tiny.model.id, tiny.model.version)
    assert loaded.info.digest == report["model"]["digest"]
    assert loaded.calibration.abstain_below == report["calibration"]["abstain_below"]
    assert json.loads((folder / export.REPORT).read_text()) == report


def test_changed_weights_no_longer_match_the_digest(exported, tmp_path: Path):
    """A bundle whose weights were changed is refused."""
    _, _, whole = exported
    folder = shutil.copytree(whole, tmp_path / "bundle")
    weights = folder / checkpoints.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-2] + b"\x00\x3c")
    with pytest.raises(checkpoints.ModelError, match="states"):
        load(folder)


def test_the_card_shows_the_report(exported, tiny: config.Config):
    """The card has the summary, the command, every count of the confusion matrix and how many were held out."""
    _, report, folder = exported
    card = (folder / export.CARD).read_text()
    assert tiny.model.summary.strip() in card
    assert "callmood-train test" in card
    for emotion, counts in zip(EMOTIONS, report["test"]["confusion"], strict=True):
        assert re.search(rf"^\| {emotion} \| {' [|] '.join(map(str, counts))} \|$", card, re.MULTILINE)
    assert f"{len(report['test']['confusion']) * 2} held-out speakers" in card


def test_the_card_says_what_the_model_does_with_other_sounds(exported, tones: dict[str, list[Clip]], tmp_path: Path):
    """As measured on the bundle, with sounds around the clips and with sounds alone; other facts stay."""
    _, report, folder = exported
    shutil.copytree(folder, tmp_path / "bundle")
    clips = [dataclasses.replace(clip, rate_hz=8_000) for clip in tones["test"]]
    found = other_sounds.measure(load(tmp_path / "bundle"), clips)
    export.add_facts(tmp_path / "bundle", {"sounds": found})
    written = json.loads((tmp_path / "bundle" / export.REPORT).read_text())
    assert {name: value for name, value in written.items() if name != "sounds"} == report
    assert written["sounds"]["around"]["utterances"] == len(clips)
    assert written["sounds"]["alone"]["sounds"] > 90
    card = (tmp_path / "bundle" / export.CARD).read_text()
    assert f"| {found['around']['ua']:.1%} |" in card
    assert f"labels {found['alone']['labelled']:.0%}" in card
    assert "## With other sounds" not in (folder / export.CARD).read_text()


def test_speakers_with_the_same_name_in_two_corpora_are_two():
    """The model card counts persons."""
    corpora = ("emodb", "savee")
    items = [manifest.Item(f"{one}1", "", one, "1", "en", Emotion.ANGER, "test", 1.0) for one in corpora]
    assert export._data(items)["test"]["speakers"] == 2


def test_the_card_says_which_speakers_were_not_compared(exported):
    """Where a pseudo-labelled list was added: a name in one corpus says nothing about the other one."""
    _, report, _ = exported
    both = {**report, "data": {**report["data"], "corpora": ["own", "pseudo"]}}
    words = "Speakers of different corpora, and pseudo-labelled utterances without a speaker, were not compared."
    assert words in export.card(both)
    assert words not in export.card(report)


def test_the_temperature_was_fitted_on_validation_and_not_on_test(exported, tones: dict[str, list[Clip]]):
    """The stored temperature is the one that the validation split asks for."""
    model, report, _ = exported
    logits, labels = train.predict(model, tones["valid"], batch_size=8)
    fitted = export.calibrate.fit_temperature(logits, labels)
    assert report["calibration"]["temperature"] == pytest.approx(fitted, abs=1e-4)


def test_the_threshold_is_one_of_calibrated_confidences():
    """A model that is too sure of itself gives a label to the half of the utterances that it knows, and to no other."""
    numbers = np.arange(2_000)
    labels, is_known = numbers % 4, numbers < 1_000
    answers = np.where(is_known | (numbers % 2 == 1), labels, (labels + 1) % 4)
    logits = np.eye(4)[answers] * np.where(is_known, 12.0, 8.0)[:, None]
    calibration = export._calibrated(logits, labels, CalibrationConfig(wanted_risk=0.05))
    assert calibration.temperature > 2
    found = evaluate(logits, labels, **dataclasses.asdict(calibration))
    assert (found["coverage"], found["risk"]) == (0.5, 0.0)
