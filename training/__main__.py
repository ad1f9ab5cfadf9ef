"""The `callmood-train` command."""

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from training import config, data, front_end, manifest, speak, synthesize, train
from training.config import Config
from training.convert import convert
from training.export import Provenance, export
from worker.checkpoints import DEMO_FOLDER, read_json
from worker.errors import CallmoodError
from worker.model import EmotionModel

DEMO_CONFIG = config.CONFIGS / "demo_tiny.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 2 where a configuration, a corpus or a program is wrong or missing."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.run(options)
    except CallmoodError as error:
        sys.stderr.write(f"callmood-train: {error}\n")
        return 2
    return 0


def _demo_tiny(options: argparse.Namespace) -> None:
    settings = config.load(DEMO_CONFIG, options.set)
    path = synthesize.synthesize(options.work, settings.corpus)
    command = _command(options.set, "demo-tiny")
    _make(settings, path, options.out, command, {"espeak-ng": speak.version()})


def _train(options: argparse.Namespace) -> None:
    command = _command(options.set, "train", options.config.name, options.manifest.name, options.out.name)
    _make(config.load(options.config, options.set), options.manifest, options.out, command, {})


def _synthesize(options: argparse.Namespace) -> None:
    path = synthesize.synthesize(options.out, config.load(options.config, options.set).corpus)
    sys.stdout.write(f"{path}\n")


def _synth_calls(options: argparse.Namespace) -> None:
    from training import calls  # noqa: PLC0415 - needs soundfile, which training images may lack

    for path in calls.make_all(options.folder):
        sys.stdout.write(f"{path}\n")


def _convert(options: argparse.Namespace) -> None:
    encoder = read_json(options.encoder) if options.encoder else None
    info = convert(options.source, options.target, encoder)
    sys.stdout.write(json.dumps({"folder": str(options.target), "id": info.id, "digest": info.digest}, indent=2) + "\n")


def _command(overrides: Sequence[str], *words: str) -> str:
    """The command as the card shows it: without the folders of the machine it ran on."""
    return shlex.join(["callmood-train", *words, *(word for value in overrides for word in ("--set", value))])


def _make(settings: Config, path: Path, out: Path, command: str, tools: dict[str, str]) -> None:
    """Corpus to bundle."""
    clips = data.load(path)
    torch.manual_seed(settings.train.seed)
    model = EmotionModel.new(settings.model.encoder, normalize=settings.model.normalize)
    if settings.model.filter_bank:
        front_end.start_as_filter_bank(model)
    epochs = train.train(model, settings.train, clips["train"], clips["valid"])
    report = export(model, settings, clips, Provenance(command, manifest.read(path), epochs, tools), out)
    sys.stdout.write(json.dumps({"bundle": str(out), "test": report["test"]}, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="callmood-train", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run, set=[])
        return added

    def settable(added: argparse.ArgumentParser) -> None:
        added.add_argument("--set", action="append", metavar="PART.KEY=VALUE", help="override the configuration")

    demo = command(
        "demo-tiny", _demo_tiny, "Rebuild the bundled demo model: synthesize, train, calibrate, evaluate, export."
    )
    demo.add_argument("--work", type=Path, default=Path("build/demo-tiny"), help="where the corpus goes")
    demo.add_argument("--out", type=Path, default=DEMO_FOLDER, help="where the bundle goes")
    settable(demo)

    training = command("train", _train, "Train, calibrate, evaluate and export a model on a corpus of your own.")
    training.add_argument("config", type=Path)
    training.add_argument("manifest", type=Path)
    training.add_argument("out", type=Path, help="where the bundle goes")
    settable(training)

    corpus = command("synthesize", _synthesize, "Make the synthetic corpus.")
    corpus.add_argument("out", type=Path)
    corpus.add_argument("--config", type=Path, default=DEMO_CONFIG)
    settable(corpus)

    converting = command("convert", _convert, "Pickled checkpoints of others to safetensors that the worker loads.")
    converting.add_argument(
        "source", type=Path, help="folder as downloaded: Hugging Face, or SpeechBrain's IEMOCAP recipe"
    )
    converting.add_argument("target", type=Path, help="folder that does not exist yet")
    converting.add_argument("--encoder", type=Path, help="config.json of the encoder, if it is not wav2vec 2.0 base")

    example = command("synth-calls", _synth_calls, "Speak the scripts (*.toml) of a folder as two-party calls.")
    example.add_argument("folder", type=Path, nargs="?", default=Path("examples/calls"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
