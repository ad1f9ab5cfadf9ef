"""docs/decisions/README.md, made of the decisions."""

from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "decisions" / "README.md"
_HEAD: Final = """# Decisions

<!-- written by `make docs`; do not edit -->

One page for each alternative that was refused: what was decided, why, and when to think again.

"""


def page() -> str:
    """The page as it must stand in docs/decisions/."""
    return _HEAD + "".join(
        f"- {path.stem[:4]} [{path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}]({path.name})\n"
        for path in sorted(PAGE.parent.glob("0*.md"))
    )
