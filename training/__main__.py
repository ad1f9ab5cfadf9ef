"""The `callmood-train` command."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from callmood.training import commands
from callmood.training.corpora import CORPORA
from callmood.training.protocols import PROTOCOLS
from callmood.worker.errors import CallmoodError
from callmood.worker.model.checkpoints import DEMO_FOLDER


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 2 if a configuration, a corpus or a program is wrong or missing."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.run(options)
    except CallmoodError as error:
        sys.stderr.write(f"callmood-train: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="callmood-train", description=__doc__)
    added = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = added.add_parser(name, help=text, description=text)
        made.set_defaults(run=run, set=[])
        return made

    _train(command("train", commands.train, "Train, calibrate, judge and export a model on a manifest with splits."))
    _row(command("row", commands.row_command, "Run every fold of a configuration, and show the published figure."))
    command("rows", commands.rows, "List the shipped configurations and their published figures.")
    _prepare(command("prepare", commands.prepare_command, "Make a manifest of a corpus, or of a list of your own."))

    judging = command("evaluate", commands.evaluate, "Judge any model that the worker loads, over telephone lines too.")
    judging.add_argument("model", help="a bundle, a Hugging Face folder, hf://OWNER/NAME@COMMIT, or demo-tiny")
    judging.add_argument("manifest", type=Path)
    judging.add_argument("out", type=Path, help="folder for summary.json and report.html")
    judging.add_argument("--batch-size", type=_at_least(1), default=8)
    judging.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")

    exporting = command("export", commands.export, "Make a bundle of a run's folder.")
    exporting.add_argument(
        "run_folder", type=Path, metavar="RUN", help="folder of a fold, as `row` and `train` leave it"
    )
    exporting.add_argument("out", type=Path, help="where the bundle goes")

    pushing = command("push", commands.push, "Upload a bundle to the hub; prints what the worker loads it by.")
    pushing.add_argument("bundle", type=Path)
    pushing.add_argument("repository", metavar="OWNER/NAME")
    pushing.add_argument("--private", action="store_true")

    writing = command(
        "to-transformers", commands.to_transformers, "Write a bundle with SUPERB's head in transformers' layout."
    )
    writing.add_argument("bundle", type=Path)
    writing.add_argument("out", type=Path)

    converting = command(
        "convert", commands.convert_command, "Convert pickled checkpoints of other projects to safetensors."
    )
    converting.add_argument(
        "source", type=Path, help="folder as downloaded: Hugging Face, or SpeechBrain's IEMOCAP recipe"
    )
    converting.add_argument("target", type=Path, help="folder that does not exist yet")
    converting.add_argument("--encoder", type=Path, help="config.json of the encoder, if it is not wav2vec 2.0 base")

    _synthetic(command)
    return parser


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{number} is less than {lowest}")
        return number

    return whole_number


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a file, or the name of a shipped configuration")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path, help="where the bundle goes")
    parser.add_argument("--work", type=Path, help="where the run goes (default: OUT.run)")
    parser.add_argument("--robustness", action="store_true", help="judge over telephone lines, too")
    _running(parser)


def _row(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a shipped configuration (`callmood-train rows`), or a file")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        help="a corpus as distributed, or a manifest; several times for several",
    )
    parser.add_argument("--corpus", choices=CORPORA, default="iemocap", help="what a folder holds (default: iemocap)")
    parser.add_argument(
        "--protocol", action="append", choices=PROTOCOLS, default=[], help="default: those with a published figure"
    )
    parser.add_argument("--encoder", metavar="FOLDER", help="the pre-trained encoder, instead of the hub's")
    parser.add_argument("--partial", action="store_true", help="accept an IEMOCAP that is not whole")
    parser.add_argument("--robustness", action="store_true", help="judge over telephone lines, too")
    parser.add_argument("--work", type=Path, help="where the runs go (default: runs/NAME)")
    _running(parser)


def _prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("source", type=Path, help="the corpus as distributed; for `own`, a CSV or JSON-lines file")
    parser.add_argument("out", type=Path, help="folder for the manifest, and for audio that had to be converted")
    parser.add_argument(
        "--split",
        choices=["speakers"],
        help="deal speakers without a split out to train, valid, test (always with `own`)",
    )
    parser.add_argument("--seed", type=_at_least(0), default=0, help="seed of --split")
    parser.add_argument("--partial", action="store_true", help="accept an IEMOCAP that is not whole")
    parser.add_argument(
        "--speakers-of-2021", action="store_true", help="read IEMOCAP's speakers as the paper's code did"
    )


def _synthetic(command: Callable[..., argparse.ArgumentParser]) -> None:
    demo = command(
        "demo-tiny",
        commands.demo_tiny,
        "Rebuild the bundled demo model: synthesize, train, calibrate, evaluate, export.",
    )
    demo.add_argument("--work", type=Path, default=Path("build/demo-tiny"), help="where the corpus and the run go")
    demo.add_argument("--out", type=Path, default=DEMO_FOLDER, help="where the bundle goes")
    _running(demo)

    corpus = command("synthesize", commands.synthesize_command, "Make the synthetic corpus.")
    corpus.add_argument("out", type=Path)
    corpus.add_argument("--config", type=Path, default=commands.DEMO_CONFIG)
    _settable(corpus)

    example = command("synth-calls", commands.synth_calls, "Speak the scripts (*.toml) of a folder as two-party calls.")
    example.add_argument("folder", type=Path, nargs="?", default=Path("examples/calls"))


def _running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    _settable(parser)


def _settable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", metavar="PART.KEY=VALUE", help="override the configuration")


if __name__ == "__main__":
    sys.exit(main())
