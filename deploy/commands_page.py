"""docs/commands.md, generated from the parsers of `callmood` and `callmood-train`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from callmood import __main__ as callmood
from callmood.training import __main__ as training

PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"
_HEAD: Final = """# Commands

<!-- written by `make docs` from the commands' parsers; do not edit -->

`callmood` runs and operates workers. `callmood-train` makes models ([training](training.md)). Both are in `.venv/bin`
after `make setup`; the image has `callmood`. `COMMAND --help` prints the same texts.

| exit code | meaning |
| --- | --- |
| 0 | success |
| 1 | `callmood erase`: records of the call remain on Kafka until their retention ends |
| 2 | an argument, a setting, a credential, a topic, a file or the model is wrong |
| 70 | `callmood worker`: more consecutive bad records than `CALLMOOD_INPUT__MAX_CONSECUTIVE_BAD` allows |
| 75 | Kafka or Redis does not answer, or the worker stopped on an error: try again |
| 141 | the program that reads the output has ended, as in `callmood redrive \\| head` |

Commands that use Kafka or Redis take the addresses, and all other settings, from [environment
variables](configuration.md). `analyze` uses only the settings of segmentation, policy, alerts and model.
"""


def page() -> str:
    """The content of docs/commands.md."""
    programs = (callmood.command_line(), training.command_line())
    return "\n".join([_HEAD, *(line for program in programs for line in _program(program))])


def commands(program: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below a parser by name; empty if it has none."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in _actions(program):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as in `_actions`
            found |= action.choices
    return found


def _program(program: argparse.ArgumentParser) -> Iterator[str]:
    for command in commands(program).values():
        below = commands(command)
        if below:
            yield from _program(command)
        else:
            yield from _section(command)


def _section(command: argparse.ArgumentParser) -> Iterator[str]:
    text = (command.description or "").partition("\n")[0].rstrip(".")
    yield f"## {command.prog}\n\n{text[0].upper()}{text[1:]}.\n"
    rows = [f"| {_name(action)} | {_meaning(action)} |" for action in _actions(command)]
    if rows:
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""])


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of a parser, without `--help` and `--version`."""
    every: list[argparse.Action] = parser._actions  # noqa: SLF001 - argparse has no public name for it
    return [action for action in every if action.dest not in ("help", "version")]


def _name(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return f"`{value}`"
    return f"`{action.option_strings[-1]}{f' {value}' if action.nargs != 0 else ''}`"


def _value(action: argparse.Action) -> str:
    metavar: Any = action.metavar or action.dest.upper()
    forms = {"+": f"{metavar} …", "*": f"[{metavar} …]", "?": f"[{metavar}]"}
    return forms.get(str(action.nargs), str(metavar))


def _meaning(action: argparse.Action) -> str:
    choices = [str(choice) for choice in action.choices or () if choice]
    listed = f" ({', '.join(f'`{choice}`' for choice in choices)})" if choices and action.metavar is None else ""
    meaning, separator, default = (action.help or "").partition("; default: ")
    required = "; required" if action.option_strings and action.required else ""
    return f"{meaning}{listed}{separator}{default}{required}".replace("|", "&#124;")
