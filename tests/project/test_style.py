"""The words that docs/style.md rules out do not come back."""

import re
from pathlib import Path

import pytest

TEXT = {".md", ".py", ".toml", ".yaml", ".yml", ".tpl", ".txt", ".lua"}
RULED_OUT = re.compile(
    r"""(?<![a-z])(?:
        anew | afresh | heed(?:s|ed|ing)? | mend(?:s|ed|ing)? | mourn(?:s|ed|ing)? | woken | whoever | whomever | whence
        | thereby | strangers? | papers | for\ who\ reads | is\ none\ of\ (?:ours|its|them|theirs) | so\ many\ ends
        | nobody\ need\b | to\ be\ had
    )(?![a-z])""",
    re.VERBOSE | re.IGNORECASE,
)
# Files that must name the words. A new one needs a reason.
ALLOWED = {
    Path("docs/style.md"),  # the rule
    Path("examples/calls/cancellation.toml"),  # a caller speaks of papers
    Path("tests/project/test_style.py"),  # this test
}


def found_in(text):
    """The words in a text, with their line numbers; a line break counts as a space."""
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())}"
        for match in RULED_OUT.finditer(text.replace("\n", " "))
    ]


def test_no_text_uses_a_word_that_the_style_rules_out(texts):
    """Documents, names, comments, settings, log events and errors are free of archaic and private words."""
    scanned = {path: text for path, text in texts.items() if path.suffix in TEXT and path not in ALLOWED}
    assert len(scanned) >= 300
    assert [f"{path}:{place}" for path, text in scanned.items() for place in found_in(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "decided anew",
        "heeded at once",
        "Mend the store",
        "_mourn(lost)",
        "write_papers",
        "a stranger's",
        "for who\nreads",
    ],
)
def test_the_check_finds_each_form(text):
    """Words are found in sentences, in names, in capitals and across line breaks."""
    assert found_in(text)


@pytest.mark.parametrize("text", ["amended", "we recommend", "the paper", "estranged", "commend", "Smender"])
def test_the_check_knows_words_apart(text):
    """Parts of other words are not found."""
    assert not found_in(text)
