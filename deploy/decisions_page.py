"""docs/decisions/README.md, generated from the decisions."""

from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "decisions" / "README.md"
_HEAD: Final = """# Decisions

<!-- written by `make docs`; do not edit -->

One page per decision, if somebody could propose a rejected alternative again: the decision, its reasons, and when to
reconsider it. Numbers of deleted pages are not used again.

"""


def page() -> str:
    """The content of docs/decisions/README.md."""
    return _HEAD + "".join(
        f"- {path.stem[:4]} [{path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}]({path.name})\n"
        for path in sorted(PAGE.parent.glob("0*.md"))
    )
