"""Documents that cannot go stale: what they name exists, and nothing in the repository is of one machine only."""

import re
import subprocess
import sys
import tomllib

from callmood import __main__ as callmood
from callmood.training import __main__ as training
from callmood.worker.settings import Settings
from deploy import chart, commands_page, metrics_page
from deploy.pages import PAGES, stale

# Whom the documents and files may name. A new name here is a decision, not an accident.
HOSTS = {
    "127.0.0.1",
    "localhost",
    "apache.org",
    "arxiv.org",
    "example.com",
    "github.com",
    "json-schema.org",
    "keepachangelog.com",
    "semver.org",
    "www.w3.org",
}
MACHINE = re.compile(r"(?<![\w.~$}-])/(?:home|root|Users|work)/\w")


def test_the_derived_pages_are_current():
    """Settings, training options, metrics and the chart's schema and README say what their sources say."""
    assert len(PAGES) >= 5
    assert stale() == [], "run: make docs"


def test_every_metric_is_described():
    """A metric says in a sentence what it is."""
    assert len(metrics_page.every()) >= 20
    assert [metric._name for metric in metrics_page.every() if not metric._documentation.endswith(".")] == []


def test_every_value_of_the_chart_is_described():
    """A value of the chart has a sentence; an unquoted comma in the YAML file would cut it."""
    rows = [line for line in chart.readme().splitlines() if line.startswith("| `")]
    assert len(rows) >= 70
    assert [row for row in rows if not row.endswith(". |")] == []


def test_every_argument_of_a_command_is_described():
    """docs/commands.md has each command of both programs, and a text for each argument."""
    page = commands_page.page()
    for program in (callmood.command_line(), training.command_line()):
        assert [name for name in commands_page.commands(program) if f"## {program.prog} {name}" not in page] == []
    assert re.findall(r"^\| `[^`]+` \|\s+\|$", page, re.MULTILINE) == []


def test_every_setting_is_described():
    """A setting says what it is and in which unit."""
    groups = {name: field.annotation.model_fields for name, field in Settings.model_fields.items()}
    assert sum(len(fields) for fields in groups.values()) >= 50
    silent = [f"{group}.{name}" for group, fields in groups.items() for name, f in fields.items() if not f.description]
    assert silent == []


def test_the_digest_is_described_as_it_is_computed(root):
    """The contract says that a model's digest covers configuration and weights, as `checkpoints` computes it."""
    for path in ("schemas/redis.md", "schemas/json/utterance.schema.json", "schemas/json/call.schema.json"):
        assert "SHA-256 of the model's configuration and weights" in (root / path).read_text(), path
    assert "SHA-256 of the weights" not in (root / "schemas/redis.md").read_text()


def test_the_changelog_leads_with_this_version(root):
    """The newest entry of the changelog is the version that is built."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    entries = re.findall(r"^## \[?v?(\d[^\]\s]*)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == version


def test_the_chart_is_of_this_version(root):
    """The chart installs the version that is built."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    chart = (root / "helm" / "callmood" / "Chart.yaml").read_text()
    assert re.findall(r"^(?:version|appVersion): (.*)$", chart, re.MULTILINE) == [version, version]


def test_every_make_target_in_a_document_exists(root, texts):
    """`make X` in the README and the other documents is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (root / "Makefile").read_text(), re.MULTILINE))
    named = {
        (str(path), target)
        for path, text in texts.items()
        if path.suffix == ".md"
        for target in re.findall(r"(?:`|^\s*|&& )make ([a-z][a-z-]*)", text, re.MULTILINE)
    }
    assert {"demo", "test"} <= {target for path, target in named if path == "README.md"}
    assert {(path, target) for path, target in named if target not in targets} == set()


def test_every_make_target_is_explained(root):
    """`make help` lists every target."""
    makefile = (root / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split())
    assert phony == set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))


def test_every_command_in_the_readme_exists(root):
    """`callmood X` in the README is a command of the program."""
    shown = subprocess.run(
        [sys.executable, "-m", "callmood", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = set(re.findall(r"^    ([a-z]+)\b", shown, re.MULTILINE))
    assert {"worker", "analyze", "replay"} <= commands
    named = re.findall(r"(?:`|^\s*|&& )callmood ([a-z]+)", (root / "README.md").read_text(), re.MULTILINE)
    assert set(named) <= commands


def test_every_link_between_documents_leads_somewhere(root, texts):
    """A relative link in a document names a file or folder of the repository."""
    links = [
        (path, target)
        for path, text in texts.items()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text)
    ]
    broken = [f"{path}: {target}" for path, target in links if not (root / path.parent / target).exists()]
    assert broken == []


def test_no_unknown_host_is_named(texts):
    """An address in the repository is one that everybody knows, or an example."""
    strange = set()
    for path, text in texts.items():
        for host in re.findall(r"\b(?:https?|rediss?|tcp|ipc)://(?:[^\s/@]*@)?([A-Za-z0-9][A-Za-z0-9.-]*)", text):
            known = any(host == name or host.endswith("." + name) for name in HOSTS)
            if not known and not host.endswith(".invalid") and "." in host:
                strange.add(f"{path}: {host}")
    assert strange == set()


def test_nothing_names_a_folder_of_one_machine(root, texts):
    """No file holds the path of this checkout or of somebody's home."""
    assert len(texts) >= 150
    here = f"{root}/"
    leaks = [
        f"{path}:{number}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if here in line or MACHINE.search(line)
    ]
    assert leaks == []
