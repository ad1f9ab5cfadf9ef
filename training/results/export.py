"""Export a trained model as a bundle: calibrated, evaluated with the worker's engine, with report and card."""

import dataclasses
import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.training import checkpoint, config, manifest
from callmood.training.config import Config
from callmood.training.evaluate import Labels, Logits, evaluate, softmax
from callmood.training.loop import runs
from callmood.training.loop.data import Clip, refuse_short
from callmood.training.loop.loop import Epoch
from callmood.training.loop.train import predict
from callmood.training.networks import dimensions, lora
from callmood.training.options import CalibrationConfig
from callmood.training.results import calibrate
from callmood.worker.errors import ConfigurationError
from callmood.worker.model import model as worker_model
from callmood.worker.model.checkpoints import Calibration, HeadKind, ModelSpec
from callmood.worker.model.model import EmotionModel, Release

REPORT = "report.json"
CARD = "README.md"
PAGE = "report.html"
_TEMPLATE = Path(__file__).with_name("card.md")
_SOUNDS = Path(__file__).with_name("card_sounds.md")
_STORAGE = torch.float16
_APART = "No speaker is in two splits."
_BY_NAME = " Speakers of different corpora, and pseudo-labelled utterances without a speaker, were not compared."
_SHARED = "**Speakers are in several splits: these figures are speaker-dependent, and higher than for new speakers.**"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """How the model was made."""

    command: str
    items: Sequence[manifest.Item]
    epochs: Sequence[Epoch]
    tools: Mapping[str, str]


def export(
    model: EmotionModel, settings: Config, clips: Mapping[str, Sequence[Clip]], provenance: Provenance, folder: Path
) -> dict[str, Any]:
    """Calibrate on `valid`, write the bundle, evaluate it on `test`, write the report and the card.

    Returns:
        The report.

    Raises:
        ConfigurationError: a clip is too short for the model, or the model answers with numbers that are not finite.
    """
    for heard in clips.values():
        refuse_short(heard, model.min_samples)
    batch_size = settings.train.batch_size
    # What is calibrated is what is stored: the weights, rounded.
    model.load_state_dict({name: tensor.to(_STORAGE).to(tensor.dtype) for name, tensor in model.state_dict().items()})
    logits, labels = predict(model, clips["valid"], batch_size=batch_size)
    calibration = _calibrated(logits, labels, settings.calibration)
    release = Release(settings.model.id, settings.model.version, _revision(), calibration)
    info = worker_model.save_bundle(model, folder, release, storage=_STORAGE)

    fields = dataclasses.asdict(calibration)
    written = worker_model.load(folder)
    report = {
        "model": {
            "id": info.id,
            "version": info.version,
            "digest": info.digest,
            "revision": release.revision,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        "calibration": {**fields, **dataclasses.asdict(settings.calibration)},
        "test": evaluate(*predict(written, clips["test"], batch_size=batch_size), **fields),
        "valid": evaluate(logits, labels, **fields),
        "data": _data(provenance.items),
        "training": {
            "command": provenance.command,
            "config": _without_folders(settings),
            "epochs": [dataclasses.asdict(epoch) for epoch in provenance.epochs],
            "tools": _versions() | dict(provenance.tools),
        },
    }
    text = json.dumps(report, indent=2) + "\n"
    (folder / REPORT).write_text(text, encoding="utf-8")
    written_report: dict[str, Any] = json.loads(text)
    (folder / CARD).write_text(card(written_report), encoding="utf-8")
    return written_report


def _calibrated(logits: Logits, labels: Labels, wanted: CalibrationConfig) -> Calibration:
    temperature = round(calibrate.fit_temperature(logits, labels), 4)  # the threshold is fitted to what is stored
    found = calibrate.fit_threshold(softmax(logits, temperature), labels, wanted.wanted_risk, wanted.confidence)
    if found == calibrate.ABSTAIN_ALWAYS:
        _log.warning(
            "the model abstains from every label: %d validation utterances cannot show a risk of at most %g with a "
            "confidence of %g; validate on more, or raise calibration.wanted_risk",
            len(labels),
            wanted.wanted_risk,
            wanted.confidence,
        )
    return Calibration(temperature=temperature, abstain_below=found)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def export_run(run: Path, folder: Path, tools: Mapping[str, str]) -> dict[str, Any]:
    """Export the best weights of an evaluated run, from its folder.

    Returns:
        The report.

    Raises:
        ConfigurationError: the folder holds no such run, or one whose model the worker does not serve.
    """
    if not (run / runs.OUTCOME).is_file():
        raise ConfigurationError(f"{run}: no evaluated run in this folder: only an evaluated run can be exported")
    facts = json.loads((run / runs.RUN).read_text(encoding="utf-8"))
    if facts["encoder"] is None:
        raise ConfigurationError(f"{run}: a baseline without an encoder; the worker does not serve it")
    settings = config.of_values(str(run / runs.RUN), facts["config"])
    model = EmotionModel(
        ModelSpec(
            encoder=facts["encoder"],
            head=HeadKind(settings.model.head),
            normalize=facts["normalize"],
            normalize_eps=settings.model.normalize_eps,
            output_norm=settings.model.output_norm,
        )
    )
    lora.adapt(model, settings.lora)
    state = checkpoint.load(run / checkpoint.CHECKPOINT)
    model.load_state_dict(dimensions.served(state["best"]))
    lora.merge(model)
    items = [manifest.Item(**{**item, "label": Emotion(item["label"])}) for item in facts["items"]]
    clips = {split: runs.Clips().of([item for item in items if item.split == split]) for split in manifest.SPLITS}
    epochs = [Epoch(**epoch) for epoch in state["progress"]["epochs"]]
    report = export(model.eval(), settings, clips, Provenance(facts["command"], items, epochs, tools), folder)
    if (run / PAGE).is_file():
        shutil.copyfile(run / PAGE, folder / PAGE)
    return report


def add_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add what was measured on a bundle to its report, and write its card again."""
    report = {**json.loads((folder / REPORT).read_text(encoding="utf-8")), **facts}
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(report), encoding="utf-8")


def card(report: Mapping[str, Any]) -> str:
    """The model card of a report, in Markdown."""
    data, training = report["data"], report["training"]
    shared = data.get("heard_speakers", 0)  # of the tested ones; a report without the key is from before it could be
    return _TEMPLATE.read_text(encoding="utf-8").format(
        model=report["model"],
        summary=training["config"]["model"]["summary"].strip(),
        test=report["test"],
        calibration=report["calibration"],
        aim=_aim(report["calibration"]),
        heard_before="utterances" if shared else "speakers",
        speakers=f"{data['test']['speakers']} {f'speakers, {shared} heard before' if shared else 'held-out speakers'}",
        shared=_SHARED if shared else _APART + (_BY_NAME if len(data["corpora"]) > 1 else ""),
        corpora=", ".join(data["corpora"]),
        start=training["config"]["model"].get("pretrained") or "random weights",
        other_sounds=_SOUNDS.read_text(encoding="utf-8").format(**report["sounds"]) if "sounds" in report else "",
        confusion=_confusion_table(report["test"]["confusion"]),
        splits="\n".join(
            f"| {split} | {data[split]['speakers']} | {data[split]['utterances']} | {data[split]['hours']} |"
            for split in manifest.SPLITS
        ),
        languages=", ".join(data["languages"]),
        command=training["command"],
        minutes=round(sum(epoch["seconds"] for epoch in training["epochs"]) / 60),
        epochs=len(training["epochs"]),
        tools=", ".join(f"{name} {version}" for name, version in training["tools"].items()),
    )


def _aim(calibration: Mapping[str, Any]) -> str:
    risk = f"{calibration['wanted_risk']:.1%}"
    if "confidence" not in calibration:  # of a report from before there was a bound
        return f"aimed at on validation: {risk}"
    return f"for new utterances, validation shows at most {risk} with a confidence of {calibration['confidence']:.0%}"


def _confusion_table(counts: Sequence[Sequence[int]]) -> str:
    header = f"| true \\ predicted | {' | '.join(EMOTIONS)} |\n|{' --- |' * (len(EMOTIONS) + 1)}"
    rows = [f"| {emotion} | {' | '.join(map(str, row))} |" for emotion, row in zip(EMOTIONS, counts, strict=True)]
    return "\n".join([header, *rows])


def _data(items: Sequence[manifest.Item]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "corpora": sorted({item.corpus for item in items}),
        "languages": sorted({item.language or "not stated" for item in items}),
    }
    tested = {item.person for item in items if item.split == "test"}
    facts["heard_speakers"] = len(tested & {item.person for item in items if item.split != "test"})
    for split in manifest.SPLITS:
        own = [item for item in items if item.split == split]
        facts[split] = {
            "utterances": len(own),
            "hours": round(sum(item.seconds for item in own) / 3600, 2),
            "speakers": len({item.person for item in own}),
        }
    return facts


def _without_folders(settings: Config) -> dict[str, Any]:
    """The configuration without the path of an encoder's folder, which says nothing on another machine."""
    shown = dataclasses.asdict(settings)
    if Path(settings.model.pretrained).is_dir():
        shown["model"]["pretrained"] = Path(settings.model.pretrained).name
    return shown


def _revision() -> str:
    """The commit of the code that trains, `-dirty` if files differ; `unknown` outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)  # noqa: S603 - fixed command
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
