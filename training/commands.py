"""The `callmood-train` commands; the command line itself is in `__main__`."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed

from callmood.schemas.common import EMOTIONS
from callmood.training import config, manifest, texts
from callmood.training.checkpoint import refuse_overwriting, write_text
from callmood.training.config import Config
from callmood.training.corpora import CORPORA, iemocap, prepare
from callmood.training.corpora import own as own_corpus
from callmood.training.loop import runs
from callmood.training.loop.place import device_and_share
from callmood.training.options import CorpusConfig
from callmood.training.pretraining import run as pretraining
from callmood.training.production import collect, published, sample, second, votes
from callmood.training.protocols import PROTOCOLS, Fold
from callmood.training.results import browser, other_sounds, predict, pseudo, publish, row
from callmood.training.results.convert import convert
from callmood.training.results.export import add_facts, export_run
from callmood.training.synthetic import speak, synthesize
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.checkpoints import read_json
from callmood.worker.model.model import load

DEMO_CONFIG = config.CONFIGS / "demo_tiny.toml"


def demo_tiny(options: argparse.Namespace) -> None:
    """Build the demo model: corpus, training, bundle."""
    settings = config.load(DEMO_CONFIG, options.set)
    path = synthesize.synthesize(options.work, synthetic(settings))
    command = command_of(options, "demo-tiny")
    _make(settings, [path], options.work / "run", _how(options, command))
    _export(options.work / "run", options.out, {"espeak-ng": speak.version()})
    tested = [item for item in manifest.absolute(manifest.read_any(path), path) if item.split == "test"]
    add_facts(options.out, {"sounds": other_sounds.measure(load(options.out), runs.Clips().of(tested))})


def train(options: argparse.Namespace) -> None:
    """Train on a manifest with splits; write a bundle."""
    settings = config.load(config.find(options.config), _overrides(options))
    command = command_of(
        options, "train", Path(options.config).name, options.manifest.name, options.out.name, *_added(options.add)
    )
    work = _work(options, settings)
    paths = [options.manifest, *options.add]
    _make(settings, paths, work, _how(options, command))
    _export(work, options.out, {})


def pretrain_command(options: argparse.Namespace) -> None:
    """Pre-train an encoder on a list; write its folder."""
    settings = config.load(config.find(options.config), _overrides(options))
    command = command_of(options, "pretrain", Path(options.config).name, options.list.name, options.out.name)
    report = pretraining.pretrain(settings, options.list, _work(options, settings), options.out, _how(options, command))
    if device_and_share(options.device)[1].rank == 0:
        shown = {name: report[name] for name in ("train", "valid", "left_out", "clusters_used", "best")}
        sys.stdout.write(json.dumps({"encoder": str(options.out), **shown}, indent=2) + "\n")


def row_command(options: argparse.Namespace) -> None:
    """Run every fold of a row, and print the published figure beside ours."""
    settings = config.load(config.find(options.name), _overrides(options))
    work = options.work or Path("runs") / manifest.file_name(settings.model.id)
    items = _items(options, settings, work)
    how = _how(options, command_of(options, "row", options.name))
    for protocol in row.wanted_protocols(settings, options.protocol):
        summary = row.run_row(settings, items, protocol, work, how)
        if summary is not None:
            sys.stdout.write(row.line(summary) + "\n")


def rows(options: argparse.Namespace) -> None:  # noqa: ARG001 - every command takes its options
    """Print every shipped configuration, with its published figures."""
    for path in sorted(config.CONFIGS.rglob("*.toml")):
        published = config.load(path).row.published
        figures = ", ".join(f"{protocol} {accuracy:.2f}" for protocol, accuracy in published.items())
        sys.stdout.write(f"{path.stem:28} {figures}\n")


def prepare_command(options: argparse.Namespace) -> None:
    """Write the manifest of a corpus or of your own list."""
    split = options.split or ("speakers" if options.corpus == own_corpus.CORPUS.name else "")
    if options.name and options.corpus != own_corpus.CORPUS.name:
        raise ConfigurationError(f"--name is for your own lists, not for {options.corpus}")
    if (options.partial or options.speakers_of_2021) and options.corpus != iemocap.CORPUS.name:
        raise ConfigurationError(
            f"--partial and --speakers-of-2021 are for {iemocap.CORPUS.name}, not for {options.corpus}"
        )
    if options.seed is not None and not split:
        raise ConfigurationError("--seed needs --split")
    seed = options.seed or 0
    how = prepare.Options(options.partial, options.speakers_of_2021, split, seed, options.name, options.map)
    path = prepare.prepare(CORPORA[options.corpus], options.source, options.out, how)
    sys.stdout.write((options.out / prepare.REPORT).read_text(encoding="utf-8"))
    sys.stdout.write(f"{path}\n")


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate a model on the test split of a manifest, or on all of a manifest without splits."""
    refuse_overwriting(options.out, Path(options.model))
    model = load(options.model)
    items = manifest.absolute(manifest.read_any(options.manifest), options.manifest)
    tested = [item for item in items if item.split in ("test", "")]
    if not tested:
        raise ConfigurationError(f"{options.manifest}: no items to evaluate")
    model.to(device_and_share(options.device)[0])
    conditions = runs.over_lines(model, runs.Clips().of(tested), batch_size=options.batch_size)
    labels = np.array([EMOTIONS.index(item.label) for item in tested])
    calibration = dataclasses.asdict(model.calibration)
    evaluated = row.EvaluatedFold(tested, conditions["clean"], labels, conditions=conditions, **calibration)
    claim = row.Claim(f"{model.info.id} {model.info.version}", "test", f"utterances of {options.manifest.name}")
    summary = row.written(row.summarise(claim, ["test"], [evaluated]), options.out)
    sys.stdout.write(row.line(summary) + "\n")


def predict_command(options: argparse.Namespace) -> None:
    """Write the model's answer to each utterance of a list."""
    predict.writer_of(options.out)  # before hours of computing
    written = [path for path in (options.out, options.pseudo, options.browser) if path]
    if len({path.resolve() for path in written}) < len(written):
        raise ConfigurationError("the table, --pseudo and --browser are three files: give each its own path")
    for path in written:
        refuse_overwriting(path, options.list)
    for needs, other in (("audio", "browser"), ("above", "pseudo")):
        if getattr(options, needs) and not getattr(options, other):
            raise ConfigurationError(f"--{needs} needs --{other}")
    model = load(options.model)
    model.to(device_and_share(options.device)[0])
    table = list(predict.rows(model, predict.heard(options.list), batch_size=options.batch_size))
    predict.write(table, options.out)
    counts: dict[str, Any] = predict.counted(table)
    if options.pseudo:
        counts["pseudo"] = pseudo.write(options.list, table, options.above, options.pseudo)
    if options.browser:
        title = f"{model.info.id} {model.info.version}: {options.list.name}"
        sounds = browser.sounds_of_errors(table, predict.heard(options.list)) if options.audio else {}
        write_text(options.browser, browser.html(title, table, sounds))
    sys.stdout.write(json.dumps(counts, indent=2) + "\n")


def collect_command(options: argparse.Namespace) -> None:
    """Sample published utterances, cut them from recordings, and write a list to label."""
    if options.per_queue and not options.queue_attribute:
        raise ConfigurationError("--per-queue needs --queue-attribute")
    rules = sample.Rules(
        roles=options.role or ("customer",),
        erased=frozenset(_words(options.erased)) if options.erased else frozenset(),
        speaker=options.speaker_attribute,
        queue=options.queue_attribute,
        per_speaker=options.per_speaker,
        per_call=options.per_call,
        per_queue=options.per_queue,
    )
    recordings = collect.Recordings(options.recordings, options.offset_s)
    records = chain.from_iterable(published.records(source, options.prefix) for source in options.results)
    found, refused = sample.candidates(records, rules)
    if not found:
        raise ConfigurationError(f"no utterance can be sampled for labelling: {dict(refused) or 'there are none'}")
    unanswered = {}
    if options.second:
        found, missing = second.compared(found, second.read(options.second))
        unanswered = {"without_second": missing}
    chosen = sample.choose(found, options.number, options.random, rules, options.seed)
    dropped = collect.write(chosen, recordings, options.out)
    counts = {
        "candidates": len(found),
        **unanswered,
        "refused": dict(refused),
        "random": sum(one.split == "test" for one in chosen),
        "uncertain": sum(one.split != "test" for one in chosen),
        "dropped": dict(dropped),
    }
    sys.stdout.write(json.dumps(counts, indent=2) + f"\n{options.out / collect.LIST}\n")


def votes_command(options: argparse.Namespace) -> None:
    """Join the lists of several annotators."""
    sys.stdout.write(json.dumps(votes.join(options.lists, options.out), indent=2) + "\n")


def export(options: argparse.Namespace) -> None:
    """Write the bundle of a run."""
    refuse_overwriting(options.out, options.run_folder)
    _export(options.run_folder, options.out, {})


def push(options: argparse.Namespace) -> None:
    """Upload a bundle to the hub."""
    sys.stdout.write(publish.push(options.bundle, options.repository, private=options.private) + "\n")


def to_transformers(options: argparse.Namespace) -> None:
    """Write a bundle in transformers' layout."""
    publish.to_transformers(options.bundle, options.out)
    sys.stdout.write(f"{options.out}\n")


def synthesize_command(options: argparse.Namespace) -> None:
    """Generate the synthetic corpus."""
    path = synthesize.synthesize(options.out, synthetic(config.load(config.find(str(options.config)), options.set)))
    sys.stdout.write(f"{path}\n")


def synth_calls(options: argparse.Namespace) -> None:
    """Generate the example calls."""
    from callmood.training.synthetic import calls  # noqa: PLC0415 - needs soundfile, which training images may lack

    for path in calls.make_all(options.folder):
        sys.stdout.write(f"{path}\n")


def convert_command(options: argparse.Namespace) -> None:
    """Convert checkpoints of other projects to safetensors."""
    encoder = read_json(options.encoder) if options.encoder else None
    info = convert(options.source, options.target, encoder)
    sys.stdout.write(json.dumps({"folder": str(options.target), "id": info.id, "digest": info.digest}, indent=2) + "\n")


def synthetic(settings: Config) -> CorpusConfig:
    """The part of a configuration that describes the synthetic corpus.

    Raises:
        ConfigurationError: it has none.
    """
    if settings.corpus is None:
        raise ConfigurationError(f"{settings.model.id}: the configuration has no [corpus]")
    return settings.corpus


def command_of(options: argparse.Namespace, *words: str) -> str:
    """The command line for the model card, without folders of this machine."""
    return shlex.join(["callmood-train", *words, *(word for value in options.set for word in ("--set", value))])


def _overrides(options: argparse.Namespace) -> list[str]:
    """The values that the command line changes."""
    return [*options.set, *([f"model.pretrained={json.dumps(options.encoder)}"] if options.encoder else [])]


def _how(options: argparse.Namespace, command: str) -> runs.Options:
    """How to run, as the command line says; not all commands have `--robustness`."""
    robustness = getattr(options, "robustness", False)
    return runs.Options(options.device, options.resume, robustness, command, options.mlflow)


def _work(options: argparse.Namespace, settings: Config) -> Path:
    """The folder of a run that writes to OUT.

    Raises:
        ConfigurationError: OUT is that folder, or the encoder that the run starts from.
    """
    work: Path = options.work or options.out.with_name(options.out.name + ".run")
    if work.resolve() == options.out.resolve():
        raise ConfigurationError(f"--work {work}: the run needs a folder of its own, beside OUT")
    if settings.model.pretrained:
        refuse_overwriting(options.out, Path(settings.model.pretrained))
    return work


def _make(settings: Config, paths: Sequence[Path], folder: Path, options: runs.Options) -> None:
    """Train and evaluate on manifests with splits."""
    items = manifest.joined(paths)
    fold, clips = Fold("given", items, settings.train.seed), runs.Clips()
    model, _ = runs.run(settings, fold, clips, folder, options)
    if device_and_share(options.device)[1].rank == 0:
        outcome = runs.predict_splits(model, settings, fold, clips, options)
        runs.save(outcome, folder)
        claim = row.Claim(settings.model.id, "given", PROTOCOLS["given"].summary)
        evaluated = row.calibrated(outcome, **dataclasses.asdict(settings.calibration))
        row.written(row.summarise(claim, ["test"], [evaluated]), folder)


def _added(paths: Sequence[Path]) -> list[str]:
    return [word for path in paths for word in ("--add", path.name)]


def _export(run: Path, out: Path, tools: dict[str, str]) -> None:
    if device_and_share("cpu")[1].rank == 0:
        report = export_run(run, out, tools)
        sys.stdout.write(json.dumps({"bundle": str(out), "test": report["test"]}, indent=2) + "\n")


def _items(options: argparse.Namespace, settings: Config, work: Path) -> list[manifest.Item]:
    """Items of each `--data`: of a manifest, or of a corpus as distributed, which is prepared first."""
    _, share = device_and_share(options.device)
    how = prepare.Options(
        partial=options.partial, speakers_of_2021=settings.paper_compat.speakers, meanings=options.map
    )
    if options.map and not any(source.is_dir() for source in options.data):
        raise ConfigurationError("--map is for folders of a corpus; labels of a manifest are mapped by `prepare --map`")
    if options.partial and options.corpus != iemocap.CORPUS.name:
        raise ConfigurationError(f"--partial is for {iemocap.CORPUS.name}, not for {options.corpus}")
    items: list[manifest.Item] = []
    for number, source in enumerate(options.data):
        path = source
        if source.is_dir():
            path = work / f"data-{number}" / prepare.MANIFEST
            if share.rank == 0:
                prepare.prepare(CORPORA[options.corpus], source, path.parent, how)
            if share.world > 1:
                distributed.barrier()
        items += manifest.absolute(manifest.read_any(path), path)
    manifest.refuse_same_ids(items, "--data", "; if these are several own lists, name each with `prepare --name`")
    return items


def _words(path: Path) -> list[str]:
    """Lines of a file without those that are empty."""
    return [line.strip() for line in texts.read(path).splitlines() if line.strip()]
