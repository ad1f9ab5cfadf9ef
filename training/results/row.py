"""A row of a table: every fold of each protocol with a published figure, and the comparison with our figure."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from callmood.schemas.common import EMOTIONS
from callmood.training import checkpoint, manifest, protocols
from callmood.training.config import Config
from callmood.training.evaluate import (
    Labels,
    Logits,
    confusion,
    evaluate,
    figures,
    macro_f1,
    reliability,
    risk_coverage,
    softmax,
    unweighted_accuracy,
    weighted_accuracy,
)
from callmood.training.loop import runs
from callmood.training.loop.place import device_and_share
from callmood.training.loop.runs import Clips, Outcome
from callmood.training.manifest import Item
from callmood.training.protocols import Fold
from callmood.training.results import calibrate
from callmood.training.results.export import PAGE
from callmood.training.results.report import html
from callmood.training.results.slices import intervals, slices
from callmood.worker.errors import ConfigurationError

SUMMARY: Final = "summary.json"
_POINTS: Final = 50  # of a risk-coverage curve, as kept

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A published accuracy, percent, and the band, in points, within which a row counts as reproduced."""

    model: str
    protocol: str
    meaning: str
    published: float | None = None
    band: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluatedFold:
    """One fold's test split, calibrated on its validation split."""

    items: Sequence[Item]
    logits: Logits
    labels: Labels
    temperature: float
    abstain_below: float
    conditions: Mapping[str, Logits]


def run_row(
    settings: Config, items: Sequence[Item], protocol: str, folder: Path, options: runs.Options
) -> dict[str, Any] | None:
    """Run all folds of a protocol; folds that have ended before are not run again.

    Returns:
        The summary, which is also written into the folder with a report; None on processes other than the first.

    Raises:
        ConfigurationError: something does not fit.
    """
    clips, evaluated = Clips(), []
    _, share = device_and_share(options.device)
    made = protocols.folds(protocol, items, settings.train.seed)
    for fold in made:
        runs.refuse_shared_audio(fold.items, clips)
    for number, fold in enumerate(made, start=1):
        place = folder / protocol / manifest.file_name(fold.name)
        outcome = None
        if options.resume:
            wanted = runs.fingerprint(_seeded(settings, fold), fold.items, share, clips)
            outcome = runs.saved(place, fold, clips, wanted, robustness=options.robustness)
        if outcome is None:
            _log.info("%s, %s: fold %d of %d", protocol, fold.name, number, len(made))
            model, _ = runs.run(settings, fold, clips, place, options)
            if share.rank:
                continue
            checkpoint.drop_moments(place / checkpoint.CHECKPOINT)  # of a large encoder, 4 GB a fold
            outcome = runs.predict_splits(model, settings, fold, clips, options)
            runs.save(outcome, place)
        evaluated.append(calibrated(outcome, **dataclasses.asdict(settings.calibration)))
    if share.rank:
        return None
    claim = Claim(
        settings.model.id,
        protocol,
        protocols.PROTOCOLS[protocol].summary,
        settings.row.published.get(protocol),
        settings.row.band,
    )
    return written(summarise(claim, [fold.name for fold in made], evaluated), folder / protocol)


def written(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write a summary and, where matplotlib is installed, its page; return the summary."""
    checkpoint.write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    try:
        checkpoint.write_text(folder / PAGE, html(summary))
    except ConfigurationError as error:  # the figures of hours of training do not depend on a picture
        _log.warning("no %s: %s", PAGE, error)
    return summary


def wanted_protocols(settings: Config, chosen: Sequence[str]) -> list[str]:
    """The chosen protocols, or else those with a published figure.

    Raises:
        ConfigurationError: there are neither.
    """
    found = list(chosen or settings.row.published)
    if not found:
        raise ConfigurationError(f"{settings.model.id} publishes no figure: choose a --protocol")
    return found


def summarise(claim: Claim, names: Sequence[str], evaluated: Sequence[EvaluatedFold]) -> dict[str, Any]:
    """Figures by fold and of all test utterances together, each as its own fold's model answered."""
    folds = [
        {
            "fold": name,
            **evaluate(one.logits, one.labels, temperature=one.temperature, abstain_below=one.abstain_below),
            "temperature": round(one.temperature, 4),
        }
        for name, one in zip(names, evaluated, strict=True)
    ]
    accuracies = np.array([100 * fold["wa"] for fold in folds])
    labels = np.concatenate([one.labels for one in evaluated])
    predicted = np.concatenate([one.logits.argmax(axis=1) for one in evaluated])
    items = [item for one in evaluated for item in one.items]
    raw = np.concatenate([softmax(one.logits) for one in evaluated])
    calibrated = np.concatenate([softmax(one.logits, one.temperature) for one in evaluated])
    limits = np.concatenate([np.full(len(one.labels), one.abstain_below) for one in evaluated])
    return {
        "model": claim.model,
        "protocol": claim.protocol,
        "meaning": claim.meaning,
        "wa": round(float(accuracies.mean()), 2),
        "wa_std": round(float(accuracies.std(ddof=1)), 2) if len(folds) > 1 else 0.0,
        "ua": round(float(np.mean([100 * fold["ua"] for fold in folds])), 2),
        "published": claim.published,
        "band": claim.band,
        "verdict": _verdict(claim, float(accuracies.mean())),
        "folds": folds,
        "pooled": {
            **figures(raw, calibrated, labels, given=calibrated.max(axis=1) >= limits),
            "intervals": intervals(items, labels, predicted),
            "reliability": reliability(calibrated, labels),
            "risk_coverage": _thinned(risk_coverage(calibrated, labels)),
        },
        "slices": slices(items, labels, predicted),
        "robustness": _robustness(evaluated, labels),
        "labels": list(EMOTIONS),
    }


def line(summary: Mapping[str, Any]) -> str:
    """One line for a terminal: ours beside the published figure."""
    published = f"{summary['published']:.2f}" if summary["published"] is not None else "none"
    return (
        f"{summary['model']}, {summary['protocol']}: WA {summary['wa']:.2f} +- {summary['wa_std']:.2f} %, "
        f"UA {summary['ua']:.2f} %, {len(summary['folds'])} folds; published {published}; {summary['verdict']}"
    )


def _seeded(settings: Config, fold: Fold) -> Config:
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, seed=fold.seed))


def calibrated(outcome: Outcome, wanted_risk: float, confidence: float = 0.95) -> EvaluatedFold:
    """The test split with temperature and threshold fitted on validation."""
    logits, labels = outcome.logits["valid"], outcome.labels["valid"]
    temperature = calibrate.fit_temperature(logits, labels)
    threshold = calibrate.fit_threshold(softmax(logits, temperature), labels, wanted_risk, confidence)
    return EvaluatedFold(
        outcome.items["test"],
        outcome.logits["test"],
        outcome.labels["test"],
        temperature,
        threshold,
        outcome.conditions,
    )


def _verdict(claim: Claim, accuracy: float) -> str:
    if claim.published is None:
        return "no published figure"
    low, high = claim.published - claim.band, claim.published + claim.band
    if low <= accuracy <= high:
        return f"reproduced (within {low:.2f} to {high:.2f})"
    return f"{'below' if accuracy < low else 'above'} the band of {low:.2f} to {high:.2f}"


def _robustness(evaluated: Sequence[EvaluatedFold], labels: Labels) -> dict[str, dict[str, float]]:
    """WA, UA and macro-F1 by line; empty unless asked for."""
    found = {}
    for name in evaluated[0].conditions:
        predicted = np.concatenate([one.conditions[name].argmax(axis=1) for one in evaluated])
        counts = confusion(labels, predicted)
        wanted = {"wa": weighted_accuracy, "ua": unweighted_accuracy, "macro_f1": macro_f1}
        found[name] = {key: round(figure(counts), 4) for key, figure in wanted.items()}
    return found


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, len(points) // _POINTS)
    return [(round(coverage, 4), round(risk, 4)) for coverage, risk in points[step - 1 :: step]]
