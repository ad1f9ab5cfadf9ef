"""Every shipped row, from its command to its summary: on a folder like IEMOCAP, with small encoders of its class."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import iemocap_tree
import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS, Encoding
from callmood.training import checkpoint, config, protocols
from callmood.training.__main__ import main
from callmood.training.evaluate import softmax
from callmood.training.loop import data, runs
from callmood.training.networks.freeze import parameter_groups
from callmood.training.results import row
from callmood.worker.model import audio
from callmood.worker.model.model import load

ENCODERS = {
    "facebook/wav2vec2-base": "w2v-base",
    "facebook/wav2vec2-base-960h": "w2v-base-960h",
    "facebook/wav2vec2-large": "w2v-large",
    "facebook/wav2vec2-large-960h": "w2v-large-960h",
    "facebook/wav2vec2-large-robust": "w2v-large-robust",
    "facebook/hubert-base-ls960": "hbt-base",
    "facebook/hubert-large-ll60k": "hbt-large",
    "facebook/hubert-large-ls960-ft": "hbt-large-960h",
    "microsoft/wavlm-large": "wavlm-large",
}
ROWS = {path.stem: path for path in sorted(config.CONFIGS.glob("*/*.toml"))}
PAPER = [name for name, path in ROWS.items() if path.parent.name == "paper"]
# A few steps; where an encoder of two layers and a corpus of a few utterances need it, less of the same.
FEW = ["train.epochs=0", "train.steps=2", "train.evaluate_steps=1", "train.accumulate=1", "train.workers=0"]
LESS = {
    "freeze-12-layers": ["train.freeze_layers=1"],
    "AttentionPooling": ["train.batch_size=2", "train.steps=1"],
}


# Rows of which every fold is run: between them, each protocol that a figure is published for.
WHOLE = {
    "PF-hbt-large": {"sd_random": 5, "loso_speaker": 10},
    "Frozen-hbt-base": {"loso_session": 5},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 utterances of ten speakers."""
    return iemocap_tree.write(tmp_path_factory.mktemp("tree") / "IEMOCAP_full_release", iemocap_tree.small(1))


@pytest.fixture(scope="module")
def encoders(encoder_folder: Callable[..., Path]) -> dict[str, Path]:
    """A folder for each published encoder, half of them pickled as most were published."""
    return {name: encoder_folder(kind, pickled=number % 2 == 0) for number, (name, kind) in enumerate(ENCODERS.items())}


@pytest.fixture
def one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row runs the first fold of each protocol and no other, and draws no page: that takes longer than the fold."""
    folds = protocols.folds
    monkeypatch.setattr(protocols, "folds", lambda *given: folds(*given)[:1])
    monkeypatch.setattr(row, "html", lambda summary: f"{summary['model']}\n")


def command(name: str, tree: Path, encoders: dict[str, Path], work: Path, *more: str) -> list[str]:
    """The row's own command, with a few steps."""
    given = ["row", name, "--data", str(tree), "--partial", "--work", str(work), *more]
    if pretrained := config.load(ROWS[name]).model.pretrained:
        given += ["--encoder", str(encoders[pretrained])]
    return [*given, *(word for value in FEW + LESS.get(name, []) for word in ("--set", value))]


def check_summary(folder: Path, name: str, protocol: str, line: str, folds: int) -> None:
    """The line and the summary are of that many folds, with the published figure beside ours."""
    published = config.load(ROWS[name]).row.published
    shown = f"{published[protocol]:.2f}" if published else "none"
    pattern = rf"^{name}, {protocol}: WA [\d.]+ \+- [\d.]+ %, UA [\d.]+ %, {folds} folds; published {shown}; "
    assert re.match(pattern, line), line
    summary = json.loads((folder / protocol / row.SUMMARY).read_text())
    assert len(summary["folds"]) == folds


@pytest.mark.slow
@pytest.mark.usefixtures("one_fold")
@pytest.mark.parametrize("name", sorted(set(ROWS) - {"soft-labels", *WHOLE}))
def test_the_command_of_a_row_runs_from_data_to_summary(
    name: str, tree: Path, encoders: dict[str, Path], tmp_path: Path, capsys
):
    """Each row trains a fold, and ends with our figure beside the published one."""
    protocol = next(iter(config.load(ROWS[name]).row.published), "loso_session_strict")
    assert main(command(name, tree, encoders, tmp_path, "--protocol", protocol)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    check_summary(tmp_path, name, protocol, line, folds=1)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", WHOLE)
def test_a_row_runs_every_fold_of_its_published_protocols(
    name: str, tree: Path, encoders: dict[str, Path], tmp_path: Path, capsys
):
    """Without `--protocol`, a row runs all folds of each protocol with a published figure, and draws their pages."""
    assert main(command(name, tree, encoders, tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert list(WHOLE[name]) == list(config.load(ROWS[name]).row.published)
    for (protocol, folds), line in zip(WHOLE[name].items(), lines, strict=True):
        check_summary(tmp_path, name, protocol, line, folds)
        page = (tmp_path / protocol / row.PAGE).read_text()
        assert page.count("<svg") == 3
        assert not re.search(r"(?:src|href)=.?https?:", page)


@pytest.mark.usefixtures("one_fold")
def test_soft_labels_train_on_votes(
    tree: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The row on votes refuses a corpus without any, and runs on one that has them."""
    assert main(command("soft-labels", tree, encoders, tmp_path, "--protocol", "loso_speaker")) == 2
    assert "votes" in capsys.readouterr().err
    path = tmp_path / "data-0" / "manifest.jsonl"
    voted = [json.loads(line) for line in path.read_text().splitlines()]
    voted = [{**item, "votes": {item["label"]: 2, "neutral": 1.5}} for item in voted]
    path.write_text("".join(json.dumps(item) + "\n" for item in voted))
    assert main(command("soft-labels", path, encoders, tmp_path / "voted", "--protocol", "loso_session_strict")) == 0


# What learns in each kind of row, by the beginnings of parameters' names: all of these, and nothing else.
CNN = "encoder.feature_extractor."
TRANSFORMER = ("encoder.masked_spec_embed", "encoder.feature_projection.", "encoder.encoder.")
LEARNS = {"EF": (CNN, *TRANSFORMER, "head."), "PF": (*TRANSFORMER, "head."), "Frozen": ("head.",)}


@pytest.mark.parametrize("name", [name for name in PAPER if name != "AttentionPooling"])
def test_the_frozen_parameters_of_a_row_are_exactly_those(name: str, encoders: dict[str, Path]):
    """EF trains everything, PF all but the CNN, Frozen nothing of the encoder: for each row, on its own encoder."""
    pretrained = config.load(ROWS[name]).model.pretrained
    settings = config.load(ROWS[name], [f"model.pretrained='{encoders[pretrained]}'"])
    model = runs.build(settings)
    parameter_groups(model, settings.train)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad is parameter_name.startswith(LEARNS[name.partition("-")[0]]), parameter_name


@pytest.fixture(scope="module")
def finished(tree: Path, encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row that has run, over telephone lines too."""
    work = tmp_path_factory.mktemp("finished")
    given = command("PF-hbt-base", tree, encoders, work, "--protocol", "loso_session_strict", "--robustness")
    assert main(given) == 0
    return work


def test_folds_that_have_ended_are_not_run_again(finished: Path, tree: Path, encoders: dict[str, Path], capsys):
    """`--resume` on a finished row reads its outcomes: no checkpoint is touched, and the summary is the same."""
    folder = finished / "loso_session_strict"
    summary = (folder / row.SUMMARY).read_text()
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    (folder / row.SUMMARY).unlink()
    given = command(
        "PF-hbt-base", tree, encoders, finished, "--protocol", "loso_session_strict", "--robustness", "--resume"
    )
    assert main(given) == 0
    assert (folder / row.SUMMARY).read_text() == summary
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*")} == stamps
    assert "PF-hbt-base" in capsys.readouterr().out


def test_a_fold_that_has_ended_keeps_its_best_weights_alone(finished: Path):
    """The optimiser's moments, two thirds of a checkpoint and more, are dropped with the last weights."""
    state = checkpoint.load(finished / "loso_session_strict" / "test-session-01" / checkpoint.CHECKPOINT)
    assert set(state) == {"progress", "best", "fingerprint"}


def test_a_row_is_judged_over_telephone_lines(finished: Path):
    """`--robustness` has a line for each step of the chain, and the clean one is the row's own figure."""
    summary = json.loads((finished / "loso_session_strict" / row.SUMMARY).read_text())
    lines = summary["robustness"]
    assert list(lines) == ["clean", "8 kHz", "8 kHz, mu-law", "8 kHz, mu-law, noise", "8 kHz, mu-law, noise, loss"]
    assert lines["clean"]["wa"] == summary["pooled"]["wa"]
    assert "Over telephone lines" in (finished / "loso_session_strict" / row.PAGE).read_text()


@pytest.mark.usefixtures("one_fold")
def test_a_resumed_row_has_the_robustness_that_is_asked_for_now(
    tree: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """`--robustness` may be added to a row that has ended, or left out: no fold trains again."""
    given = command("PF-hbt-base", tree, encoders, tmp_path, "--protocol", "loso_session_strict")
    assert main(given) == 0
    folder = tmp_path / "loso_session_strict"
    stamp = next(folder.glob("*/checkpoint.pt")).stat().st_mtime_ns
    found = {}
    for more in ([], ["--robustness"], []):
        assert main([*given, "--resume", *more]) == 0
        found[len(found)] = json.loads((folder / row.SUMMARY).read_text())
    assert [len(summary["robustness"]) for summary in found.values()] == [0, 5, 0]
    assert len({json.dumps(summary["pooled"]) for summary in found.values()}) == 1
    assert next(folder.glob("*/checkpoint.pt")).stat().st_mtime_ns == stamp
    capsys.readouterr()


@pytest.mark.parametrize("change", ["votes", "speaker", "seconds", "audio"])
@pytest.mark.usefixtures("one_fold")
def test_a_row_of_other_data_is_not_resumed(
    finished: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
):
    """Other votes, speakers or audio under the same ids are other data: `--resume` refuses them."""
    (fold,) = list((finished / "loso_session_strict").glob("test-session-01"))
    shutil.copytree(fold, tmp_path / "loso_session_strict" / fold.name)
    path = finished / "data-0" / "manifest.jsonl"
    items = [json.loads(line) for line in path.read_text().splitlines()]
    for item in items:
        item["path"] = str((path.parent / item["path"]).resolve())
    if change == "audio":
        Path(tmp_path / "other.wav").write_bytes(Path(items[0]["path"]).read_bytes()[:-4000])
        items[0]["path"] = str(tmp_path / "other.wav")
    else:
        items[0] |= {"votes": {"votes": {"anger": 2}}, "speaker": {"speaker": "Ses09M"}, "seconds": {"seconds": 9.0}}[
            change
        ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    given = command("PF-hbt-base", tmp_path / "manifest.jsonl", encoders, tmp_path, "--protocol", "loso_session_strict")
    assert main([*given, "--resume"]) == 2
    assert "other data" in capsys.readouterr().err


def test_other_weights_in_the_encoders_folder_are_another_run(encoder_folder: Callable[..., Path], tmp_path: Path):
    """A run is that of its encoder's weights, not of the folder's name; a report beside them does not count."""
    folder = shutil.copytree(encoder_folder("hbt-base"), tmp_path / "encoder")
    settings = config.load(ROWS["PF-hbt-base"], [f"model.pretrained={json.dumps(str(folder))}"])

    def fingerprint() -> str:
        return runs.fingerprint(settings, [], data.Share(), runs.Clips())

    before = fingerprint()
    (folder / "pretraining.json").write_text("{}")
    assert fingerprint() == before
    shutil.copy(encoder_folder("w2v-base") / "model.safetensors", folder)
    assert fingerprint() != before


def test_a_manifest_is_given_once(finished: Path, encoders: dict[str, Path], tmp_path: Path, capsys):
    """The same utterances twice would be in training and in test."""
    path = finished / "data-0" / "manifest.jsonl"
    given = command("PF-hbt-base", path, encoders, tmp_path, "--data", str(path), "--protocol", "sd_random")
    assert main(given) == 2
    assert "two items of iemocap have the id" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_a_clip_that_is_too_short_is_refused_by_every_command(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float
):
    """`train`, `evaluate` and `export` name the file of a clip without a frame, instead of answering with NaN."""
    fold = shutil.copytree(finished / "loso_session_strict" / "test-session-01", tmp_path / "fold")
    run = json.loads((fold / runs.RUN).read_text())
    for split in ("train", "test"):
        item = next(item for item in run["items"] if item["split"] == split)
        short = tmp_path / f"{split}-short.wav"
        short.write_bytes(Path(item["path"]).read_bytes()[: 44 + 2 * round(seconds * 16_000)])
        item["path"] = str(short)
    (fold / runs.RUN).write_text(json.dumps(run))
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(item) + "\n" for item in run["items"]))
    for arguments in (
        ["train", "demo_tiny", str(manifest), str(tmp_path / "bundle")],
        ["evaluate", "demo-tiny", str(manifest), str(tmp_path / "report")],
        ["export", str(fold), str(tmp_path / "bundle")],
    ):
        assert main(arguments) == 2
        assert re.search(r"short\.wav: 0\.0\d\d s; the encoder needs 0\.0\d\d s", capsys.readouterr().err), arguments


def test_a_fold_is_exported_and_the_worker_answers_as_the_trainer(finished: Path, tmp_path: Path, capsys):
    """`export` makes a bundle of a fold, whose probabilities are the trainer's own on that fold's test split."""
    folder = finished / "loso_session_strict" / "test-session-01"
    assert main(["export", str(folder), str(tmp_path / "bundle")]) == 0
    model = load(tmp_path / "bundle")
    facts = json.loads((folder / runs.RUN).read_text())
    tested = [item for item in facts["items"] if item["split"] == "test"]
    trained = np.load(folder / runs.OUTCOME)["logits.test"]
    assert len(tested) == len(trained) == 8
    for item, logits in zip(tested, trained, strict=True):
        sound = (Encoding.S16LE, 16_000, Path(item["path"]).read_bytes()[44:])
        served = model(*audio.prepare([sound])).detach().numpy()
        np.testing.assert_allclose(softmax(served), softmax(logits[None]), atol=2e-3)  # weights are stored in 16 bits
    assert json.loads(capsys.readouterr().out)["test"]["utterances"] == 8
    assert list(json.loads((tmp_path / "bundle" / "report.json").read_text())["test"]["labels"]) == list(EMOTIONS)


def test_what_was_not_judged_is_not_exported(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A run without an outcome makes no bundle."""
    assert main(["export", str(finished), str(tmp_path / "bundle")]) == 2
    assert "only an evaluated run can be exported" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_rows_are_listed_with_their_figures(capsys: pytest.CaptureFixture[str]):
    """`rows` has a line for each shipped configuration, and the published accuracy on it."""
    assert main(["rows"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {*ROWS, "demo_tiny", "calls-hbt-large"}
    assert any(line.split() == ["PF-hbt-large", "sd_random", "79.58,", "loso_speaker", "73.01"] for line in lines)


def test_a_row_without_a_figure_asks_for_a_protocol(tree: Path, encoders: dict[str, Path], tmp_path: Path, capsys):
    """A configuration without a published figure is an error that asks for `--protocol`."""
    assert main(command("lora", tree, encoders, tmp_path)) == 2
    assert "choose a --protocol" in capsys.readouterr().err


def test_an_encoder_that_is_not_available_is_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Without network and folder, the error names the encoder and what to give instead."""
    given = ["row", "PF-hbt-large", "--data", str(tree), "--partial", "--work", str(tmp_path), "--encoder"]
    assert main([*given, str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "--encoder" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_any_model_that_the_worker_loads_is_judged(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`evaluate` judges demo-tiny on a manifest without splits: one line, a summary by telephone line, and a page."""
    assert main(["evaluate", "demo-tiny", str(finished / "data-0" / "manifest.jsonl"), str(tmp_path)]) == 0
    assert re.match(r"demo-tiny-synthetic 1, test: WA [\d.]+ .* no published figure\n$", capsys.readouterr().out)
    summary = json.loads((tmp_path / row.SUMMARY).read_text())
    assert summary["pooled"]["utterances"] == 40
    assert summary["robustness"]["clean"]["wa"] == pytest.approx(summary["wa"] / 100, abs=1e-4)
    assert (tmp_path / row.PAGE).exists()


@pytest.mark.usefixtures("one_fold")
def test_the_card_of_a_speaker_dependent_model_says_so(tree: Path, encoders: dict[str, Path], tmp_path: Path):
    """The card warns where test speakers were in training, and states where they were not."""
    cards = {}
    for protocol, fold in {"sd_random": "seed-1", "loso_session_strict": "test-session-01"}.items():
        assert main(command("PF-w2v-base", tree, encoders, tmp_path, "--protocol", protocol)) == 0
        assert main(["export", str(tmp_path / protocol / fold), str(tmp_path / f"bundle-{protocol}")]) == 0
        cards[protocol] = (tmp_path / f"bundle-{protocol}" / "README.md").read_text()
    assert "speaker-dependent" in cards["sd_random"]
    assert "## On utterances it never heard" in cards["sd_random"]
    assert "No speaker is in two splits" not in cards["sd_random"]
    assert "No speaker is in two splits" in cards["loso_session_strict"]
    assert "2 held-out speakers" in cards["loso_session_strict"]
    assert "Corpora: iemocap." in cards["loso_session_strict"]
    assert "Encoder: w2v-base." in cards["loso_session_strict"]
    folder = str(encoders["facebook/wav2vec2-base"].parent).encode()
    leaking = [file for file in tmp_path.glob("bundle-*/*") if folder in file.read_bytes()]
    assert leaking == []  # a folder of this machine


@pytest.mark.parametrize("damage", ["no report", "touched weights"])
def test_a_bundle_that_was_not_judged_or_was_touched_is_not_published(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
):
    """`push` refuses a bundle without a report or with another digest, before any request to the hub."""
    bundle = tmp_path / "bundle"
    assert main(["export", str(finished / "loso_session_strict" / "test-session-01"), str(bundle)]) == 0
    if damage == "no report":
        (bundle / "report.json").unlink()
    else:
        weights = bundle / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-2] + b"\x00\x3c")
    assert main(["push", str(bundle), "somebody/model"]) == 2
    assert ("no report.json" if damage == "no report" else "states") in capsys.readouterr().err
