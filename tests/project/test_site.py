"""The documents as a site."""

import subprocess
import sys

import pytest


def build(sources, root, into):
    """Sphinx on these sources, as `make site` calls it; its exit code and warnings."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", root / "deploy/site", sources, into]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_site_builds_without_a_doubtful_link(root, tmp_path):
    """Every document is a page, in the contents, and each of its links leads to a page, a heading or a file."""
    assert build(root, root, tmp_path) == (0, "")
    assert len(list(tmp_path.rglob("*.html"))) >= 40
    front = (tmp_path / "README.html").read_text(encoding="utf-8")
    assert 'href="docs/tutorial.html"' in front
    assert "https://fonts" not in front  # a page asks nobody else for anything


@pytest.mark.parametrize("target", ["missing.md", "#no-such-heading", "README.md#nor-this"])
def test_a_link_that_leads_nowhere_fails_the_build(root, tmp_path, target):
    """A page that is not there, or a heading."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "README.md").write_text(f"# A page\n\n[a link]({target})\n", encoding="utf-8")
    code, told = build(sources, root, tmp_path / "site")
    assert code == 1
    assert "xref_missing" in told
