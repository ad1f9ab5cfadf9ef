"""The documents as a site."""

import re
import subprocess
import sys

import pytest


def build(sources, root, into):
    """Sphinx on these sources, as `make site` calls it; its exit code and warnings."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", root / "deploy/site", sources, into]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_site_builds_without_a_broken_link(root, tmp_path):
    """Every document is a page and in the contents, and each of its links leads to a page, a heading or a file."""
    assert build(root, root, tmp_path) == (0, "")
    assert len(list(tmp_path.rglob("*.html"))) >= 40
    front = (tmp_path / "README.html").read_text(encoding="utf-8")
    assert 'href="docs/tutorial.html"' in front
    assert "https://fonts" not in front  # a page loads nothing from another host


def test_a_broken_link_fails_the_build(root, tmp_path):
    """Each link to a missing page or heading is reported, and the build fails."""
    broken = {3: "missing.md", 5: "#no-such-heading", 7: "README.md#nor-this"}
    text = "# A page\n\n" + "\n\n".join(f"[a link]({target})" for target in broken.values()) + "\n"
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "README.md").write_text(text, encoding="utf-8")
    code, warnings = build(sources, root, tmp_path / "site")
    assert code == 1
    assert {int(line) for line in re.findall(r"README\.md:(\d+): .*xref_missing", warnings)} == broken.keys(), warnings
