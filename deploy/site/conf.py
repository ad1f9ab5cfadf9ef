"""The documents as a site: `make site`. Sphinx reads them where they are and checks each link."""

from importlib import metadata
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "callmood"
release = metadata.version("callmood")
copyright = "the callmood authors"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"{project} {release}"
root_doc = "README"
include_patterns = [
    "*.md",
    "bench/*.md",
    "deploy/local/*.md",
    "docs/**.md",
    "examples/**.md",
    "helm/callmood/README.md",
    "schemas/*.md",
    "tests/chaos/*.md",
    "worker/model/bundled/**.md",
]
myst_heading_anchors = 4

_CONTENTS = {
    "Start": [
        "docs/tutorial",
        "examples/calls/README",
        "docs/page",
        "docs/history",
        "docs/aggregates",
        "docs/architecture",
        "docs/delivery",
    ],
    "Run": [
        "docs/operations",
        "docs/capacity",
        "helm/callmood/README",
        "docs/configuration",
        "docs/commands",
        "docs/metrics",
        "docs/logs",
    ],
    "Build on it": ["schemas/README", "schemas/redis"],
    "Train": ["docs/training", "docs/training-options", "worker/model/bundled/demo-tiny/README"],
    "Evaluate": ["docs/security", "docs/compliance", "bench/RESULTS", "docs/decisions/README"],
    "Contribute": [
        "CONTRIBUTING",
        "docs/style",
        "deploy/local/README",
        "tests/chaos/README",
        "CHANGELOG",
        "SECURITY",
    ],
}


def _with_contents(_app: "Sphinx", name: str, source: list[str]) -> None:
    """Add the sidebar to a page. It is defined here, so that the pages have no directives for a site."""
    trees = {"docs/decisions/README": {"Decisions": ["0*"]}, root_doc: _CONTENTS}.get(name, {})
    for caption, pages in trees.items():
        options = (f":caption: {caption}", ":glob:", ":hidden:")
        source[0] += "\n".join(["", "```{toctree}", *options, "", *pages, "```", ""])


def setup(app: "Sphinx") -> None:
    """Sphinx calls this."""
    app.add_lexer("mermaid", TextLexer)  # diagrams stay text: drawing them needs a script from another host
    app.connect("source-read", _with_contents)
