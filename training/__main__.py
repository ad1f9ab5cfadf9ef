"""Train, evaluate and publish models for callmood."""

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError

from callmood.schemas.common import Role
from callmood.training import commands, signals
from callmood.training.corpora import CORPORA
from callmood.training.protocols import PROTOCOLS
from callmood.worker.errors import EXIT_CONFIGURATION, EXIT_OK, CallmoodError
from callmood.worker.model.checkpoints import DEMO_FOLDER

_BUNDLE_OUT: Final = "folder of the bundle to write"
_CONFIG: Final = "a file, or the name of a shipped configuration"
_DEVICE: Final = "where to compute; default: auto, a GPU if there is one"
_DEVICES: Final = ("auto", "cpu", "cuda")
_ENCODER: Final = "folder of the pre-trained encoder, instead of a download; or a bundle, with which training continues"
_MANIFEST: Final = "manifest, written by `prepare` or `synthesize`"
_MODEL: Final = "a bundle, a Hugging Face folder, hf://OWNER/NAME@COMMIT, or demo-tiny"
_PARTIAL: Final = "accept an incomplete IEMOCAP"
_SMALLER: Final = "Use a smaller batch (train.batch_size or --batch-size), or train.gradient_checkpointing=true"
_ROBUSTNESS: Final = "also evaluate over telephone lines"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 if a configuration, a corpus or a program is wrong or missing, or the disk or a GPU's memory is
        full; 130 after Ctrl-C, 143 after SIGTERM.
    """
    options = command_line().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    resumable = "; --resume continues from the last checkpoint" if hasattr(options, "resume") else ""
    try:
        with signals.at_once():
            options.run(options)
    except CallmoodError as error:
        sys.stderr.write(f"callmood-train: {error}\n")
        return EXIT_CONFIGURATION
    except (OSError, SafetensorError) as error:  # a full disk, no permission: nothing that a traceback explains
        sys.stderr.write(f"callmood-train: {error}{resumable}\n")
        return EXIT_CONFIGURATION
    except torch.OutOfMemoryError as error:
        sys.stderr.write(f"callmood-train: {str(error).partition(chr(10))[0]} {_SMALLER}\n")
        return EXIT_CONFIGURATION
    except signals.Stopped as stopped:
        sys.stderr.write(f"callmood-train: {stopped}{resumable}\n")
        return stopped.exit_code
    return EXIT_OK


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="callmood-train", description=__doc__)
    added = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = added.add_parser(name, help=text, description=text)
        made.set_defaults(run=run, set=[])
        return made

    _train(
        command(
            "train",
            commands.train,
            "Train a model on a manifest with splits, calibrate it, evaluate it, and write a bundle.",
        )
    )
    _pretrain(
        command(
            "pretrain",
            commands.pretrain_command,
            "Pre-train an encoder on speech without labels by HuBERT's masked prediction, for `train --encoder`.",
        )
    )
    _row(
        command(
            "row",
            commands.row_command,
            "Train and evaluate every fold of a configuration, and compare with the published figure.",
        )
    )
    command("rows", commands.rows, "List the shipped configurations and their published figures.")
    _prepare(
        command("prepare", commands.prepare_command, "Write a manifest of a corpus, or of your own list of utterances.")
    )

    _answers(command)
    _production(command)
    _bundles(command)
    _synthetic(command)
    return parser


def _answers(command: Callable[..., argparse.ArgumentParser]) -> None:
    evaluating = command(
        "evaluate",
        commands.evaluate,
        "Evaluate any model that the worker can load, on clean audio and over telephone lines.",
    )
    evaluating.add_argument("model", help=_MODEL)
    evaluating.add_argument("manifest", type=Path, help=_MANIFEST)
    evaluating.add_argument("out", type=Path, help="folder for summary.json and report.html")
    _computing(evaluating)

    predicting = command(
        "predict",
        commands.predict_command,
        "Write a model's answer to each utterance: probabilities, abstention, times.",
    )
    predicting.add_argument("model", help=_MODEL)
    predicting.add_argument("list", type=Path, help="a manifest, or your own list; labels and speakers are optional")
    predicting.add_argument("out", type=Path, help="file to write: .csv, .jsonl or .parquet")
    predicting.add_argument(
        "--browser", type=Path, help="also write an HTML page: the confusion matrix, with the utterances of each cell"
    )
    predicting.add_argument(
        "--audio", action="store_true", help="put the audio of wrong answers into the page of --browser"
    )
    predicting.add_argument(
        "--pseudo",
        type=Path,
        metavar="FILE",
        help="also write a list for `prepare own`, for training only: answers as labels, probabilities as votes",
    )
    predicting.add_argument(
        "--above", type=_share, default=0.0, help="lowest confidence of an answer in --pseudo; default: 0"
    )
    _computing(predicting)


def _production(command: Callable[..., argparse.ArgumentParser]) -> None:
    collecting = command(
        "collect",
        commands.collect_command,
        "Sample published utterances, cut them from recordings, and write a list to label.",
    )
    collecting.add_argument(
        "results",
        nargs="+",
        help="files of JSON lines as `callmood analyze` writes them, of Parquet (.parquet) with the same fields or as "
        "`callmood export` writes them, - for standard input, redis: the results in the Redis of CALLMOOD_REDIS__URL, "
        "or kafka: those on the topics of CALLMOOD_KAFKA__UTTERANCE_TOPIC and CALLMOOD_KAFKA__CALL_TOPIC",
    )
    collecting.add_argument(
        "recordings",
        help="folder of recordings named by call id; or a path or URL with {call_id}, and with {stream} or {channel} "
        "if these have files of their own",
    )
    collecting.add_argument("out", type=Path, help="folder for the list and the audio of its utterances")
    collecting.add_argument("--number", type=_at_least(1), default=200, help="utterances to label; default: 200")
    collecting.add_argument(
        "--random", type=_share, default=0.3, help="share drawn at random, for an unbiased test; default: 0.3"
    )
    collecting.add_argument("--seed", type=_at_least(0), default=0, help="seed of the draw; default: 0")
    collecting.add_argument(
        "--second",
        type=Path,
        metavar="FILE",
        help="a second model's answers to the same utterances, from `callmood analyze` or `predict`: choose those on "
        "which the two models disagree most, instead of uncertain ones",
    )
    collecting.add_argument(
        "--role", action="append", choices=list(Role), help="role to label; repeatable; default: customer"
    )
    collecting.add_argument(
        "--erased", type=Path, metavar="FILE", help="ids of erased calls, one per line: not sampled"
    )
    collecting.add_argument("--prefix", default="callmood", help="prefix of the keys in Redis; default: callmood")
    collecting.add_argument(
        "--offset-s", type=_seconds, default=0.0, help="position of the call's start in its recording, s; default: 0"
    )
    for what in ("speaker", "queue"):
        collecting.add_argument(f"--{what}-attribute", default="", help=f"attribute of a call that has its {what}'s id")
    for what in ("speaker", "call", "queue"):
        text = f"highest number of uncertain utterances of a {what}; default: no limit"
        collecting.add_argument(f"--per-{what}", type=_at_least(1), default=0, help=text)

    joining = command("votes", commands.votes_command, "Join the labels of several annotators to one list with votes.")
    joining.add_argument("lists", type=Path, nargs="+", help="the same list, labelled by each annotator")
    joining.add_argument("out", type=Path, help="CSV file to write, for `prepare own`")


def _bundles(command: Callable[..., argparse.ArgumentParser]) -> None:
    exporting = command("export", commands.export, "Write a bundle from a run's folder.")
    exporting.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a fold, written by `row` or `train`")
    exporting.add_argument("out", type=Path, help=_BUNDLE_OUT)

    pushing = command(
        "push", commands.push, "Upload a bundle to the Hugging Face hub; prints the value for CALLMOOD_MODEL__PATH."
    )
    pushing.add_argument("bundle", type=Path, help="folder of the bundle")
    pushing.add_argument("repository", metavar="OWNER/NAME", help="repository on the hub")
    pushing.add_argument("--private", action="store_true", help="make the repository private")

    writing = command(
        "to-transformers",
        commands.to_transformers,
        "Write a bundle with SUPERB's head as a folder that transformers loads.",
    )
    writing.add_argument("bundle", type=Path, help="folder of the bundle")
    writing.add_argument("out", type=Path, help="folder to write")

    converting = command(
        "convert", commands.convert_command, "Convert pickled checkpoints of other projects to safetensors."
    )
    converting.add_argument(
        "source", type=Path, help="downloaded folder: Hugging Face, or SpeechBrain's IEMOCAP recipe"
    )
    converting.add_argument("target", type=Path, help="folder that does not exist yet")
    converting.add_argument("--encoder", type=Path, help="config.json of the encoder, if it is not wav2vec 2.0 base")


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{number} is less than {lowest}")
        return number

    return whole_number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return seconds


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return share


def _computing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=_at_least(1), default=8, help="utterances in a batch; default: 8")
    parser.add_argument("--device", choices=_DEVICES, default="auto", help=_DEVICE)


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help=_CONFIG)
    parser.add_argument("manifest", type=Path, help=_MANIFEST)
    parser.add_argument("out", type=Path, help=_BUNDLE_OUT)
    parser.add_argument(
        "--add", type=Path, action="append", default=[], metavar="MANIFEST", help="another manifest; repeatable"
    )
    _starting(parser)
    parser.add_argument("--robustness", action="store_true", help=_ROBUSTNESS)
    _running(parser)


def _pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help=_CONFIG)
    parser.add_argument(
        "list", type=Path, help="your own list, or a manifest; without labels, and without its split `test`"
    )
    parser.add_argument("out", type=Path, help="folder of the encoder to write")
    _starting(parser)
    _running(parser)


def _starting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", metavar="FOLDER", help=_ENCODER)
    parser.add_argument("--work", type=Path, help="folder of the run; default: OUT.run")


def _row(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a shipped configuration (`callmood-train rows`), or a file")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        help="folder of a corpus as distributed, or a manifest; repeatable",
    )
    parser.add_argument("--corpus", choices=CORPORA, default="iemocap", help="corpus in the folder; default: iemocap")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=PROTOCOLS,
        default=[],
        help="how to split; repeatable; default: protocols with a published figure",
    )
    parser.add_argument("--encoder", metavar="FOLDER", help=_ENCODER)
    parser.add_argument("--partial", action="store_true", help=_PARTIAL)
    _map(parser)
    parser.add_argument("--robustness", action="store_true", help=_ROBUSTNESS)
    parser.add_argument("--work", type=Path, help="folder of the runs; default: runs/NAME")
    _running(parser)


def _prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=CORPORA, help="name of the corpus, or own for your own list")
    parser.add_argument(
        "source", type=Path, help="folder of the corpus as distributed; for `own`, a CSV or JSON-lines file"
    )
    parser.add_argument("out", type=Path, help="folder for the manifest and for converted audio")
    parser.add_argument(
        "--name",
        default="",
        help="name of your own list; equal speaker ids in lists of different names are two people",
    )
    _map(parser)
    parser.add_argument(
        "--split",
        choices=["speakers"],
        help="assign speakers without a split to train, valid or test; `own` always does this",
    )
    parser.add_argument("--seed", type=_at_least(0), help="seed of --split; default: 0")
    parser.add_argument("--partial", action="store_true", help=_PARTIAL)
    parser.add_argument(
        "--speakers-of-2021",
        action="store_true",
        help="read IEMOCAP's speakers as the authors' code of 2021 did, which is wrong for 65 utterances",
    )


def _map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="LABEL=EMOTION",
        help="emotion that another label means, such as frustrated=anger; LABEL= drops its utterances; repeatable",
    )


def _synthetic(command: Callable[..., argparse.ArgumentParser]) -> None:
    demo = command(
        "demo-tiny",
        commands.demo_tiny,
        "Build the bundled demo model again: synthesize, train, calibrate, evaluate, export.",
    )
    demo.add_argument(
        "--work",
        type=Path,
        default=Path("build/demo-tiny"),
        help="folder of the corpus and the run; default: build/demo-tiny",
    )
    demo.add_argument("--out", type=Path, default=DEMO_FOLDER, help=_BUNDLE_OUT)
    _running(demo)

    corpus = command("synthesize", commands.synthesize_command, "Generate the synthetic corpus with espeak-ng.")
    corpus.add_argument("out", type=Path, help="folder of the corpus")
    corpus.add_argument(
        "--config", type=Path, default=commands.DEMO_CONFIG, help="file with a table [corpus]; default: demo_tiny"
    )
    _settable(corpus)

    example = command(
        "synth-calls",
        commands.synth_calls,
        "Generate two-party calls from the scripts (*.toml) in a folder with espeak-ng.",
    )
    example.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("examples/calls"),
        help="folder with the scripts; default: examples/calls",
    )


def _running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument(
        "--mlflow",
        default="",
        metavar="EXPERIMENT",
        help="also write the figures of each round to this experiment in the MLflow of MLFLOW_TRACKING_URI",
    )
    parser.add_argument("--device", choices=_DEVICES, default="auto", help=_DEVICE)
    _settable(parser)


def _settable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", metavar="PART.KEY=VALUE", help="change a value of the configuration; repeatable"
    )


if __name__ == "__main__":
    sys.exit(main())
