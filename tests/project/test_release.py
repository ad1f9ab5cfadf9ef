"""`make release`: everything is made and tried, and what is not ready is named."""

import hashlib
import json
import subprocess
import sys

import pytest

from deploy import release

pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
@pytest.mark.nightly  # test_package.py builds and installs the wheel for each change
@pytest.mark.usefixtures("helm")
def test_a_release_is_made_and_tried_and_made_again_the_same(tmp_path):
    """Wheel, sources, chart, bills of materials and sums; the wheel has analyzed a call; built again it is the same."""
    command = [sys.executable, "-m", "deploy.release", "--output", tmp_path / "one"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "one/SHA256SUMS").read_text().splitlines())
    assert len(sums) == 5
    for name, digest in sums.items():
        assert hashlib.sha256((tmp_path / "one" / name).read_bytes()).hexdigest() == digest
    (bill,) = (tmp_path / "one").glob("*requirements.cdx.json")
    assert {"kafka-python", "redis", "transformers"} <= {
        one["name"] for one in json.loads(bill.read_text())["components"]
    }
    again = release.build(tmp_path / "two")
    assert hashlib.sha256(again.read_bytes()).hexdigest() == sums[again.name]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1, "would have mixed two releases"


@pytest.mark.parametrize("path", ["helm/callmood/Chart.yaml", "deploy/compose.yaml", "CHANGELOG.md"])
def test_a_version_that_is_not_everywhere_is_no_release(root, tmp_path, monkeypatch, path):
    """The file that was left behind is named."""
    for name in ("pyproject.toml", "helm/callmood/Chart.yaml", "deploy/compose.yaml", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = (root / name).read_text()
        (tmp_path / name).write_text(text.replace("0.1.0", "0.0.9") if name == path else text)
    monkeypatch.setattr(release, "_ROOT", tmp_path)
    with pytest.raises(release.NotReadyError, match=path):
        release.the_version()
