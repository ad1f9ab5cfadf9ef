"""Files in deploy/ other than the chart's: the locked requirements of the image, and the compose file."""

import argparse
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from callmood.dashboard.page.access import SHORTEST_TOKEN
from callmood.worker.commands import dashboard
from callmood.worker.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LOCKS = ("requirements.txt", "requirements-cuda.txt", "requirements-compile.txt")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+?)( ;.*)? \\$")


@pytest.fixture(scope="module")
def pins():
    """Name and version of all that is locked."""
    lines = [line for name in LOCKS for line in (DEPLOY / name).read_text().splitlines()]
    assert all(line.startswith(("#", "    --hash=sha256:")) or PIN.match(line) for line in lines), (
        "pins and hashes alone"
    )
    return {found[1]: found[2] for line in lines if (found := PIN.match(line))}


@pytest.fixture(scope="module")
def services():
    """The services of the compose file."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_the_image_is_built_from_what_the_worker_asks_for(pins):
    """Each dependency of the project is locked, to a version that it allows: a stale lock is seen."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        assert wanted.specifier.contains(pins[wanted.name]), wanted


def test_every_pin_has_a_hash():
    """An image build would refuse one without; so do we, before."""
    for name in LOCKS:
        blocks = re.split(r"^(?=[a-z])", (DEPLOY / name).read_text(), flags=re.MULTILINE)[1:]
        assert len(blocks) > 4
        assert all("--hash=sha256:" in block for block in blocks)


def test_compose_starts_nothing_before_what_it_needs(services):
    """Who waits, waits for health or for an end, and who is waited for can tell; the worker's image does."""
    waited = [
        (name, one, how["condition"]) for name in services for one, how in services[name].get("depends_on", {}).items()
    ]
    assert {name for name, _, _ in waited} == {"topics", "worker", "page", "prometheus", "grafana"}
    for _, other, condition in waited:
        if condition == "service_healthy" and other != "worker":
            assert services[other]["healthcheck"]["test"][0] == "CMD"
    assert services["worker"]["depends_on"]["topics"]["condition"] == "service_completed_successfully"


def test_compose_sets_what_a_worker_takes(services, monkeypatch):
    """The variables are settings; the grace period is longer than the drain, as in the chart."""
    for name, value in services["worker"]["environment"].items():
        assert name.startswith(PREFIX)
        monkeypatch.setenv(name, value)
    settings = Settings()
    inside = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{settings.kafka.bootstrap_servers}," in inside
    grace = yaml.safe_load((ROOT / "helm/callmood/values.yaml").read_text())["graceSeconds"]
    assert services["worker"]["stop_grace_period"] == f"{settings.worker.drain_timeout_s + grace:g}s"
    assert f"127.0.0.1:{settings.worker.health_port}:{settings.worker.health_port}" in services["worker"]["ports"]


def test_compose_gives_a_worker_no_more_than_the_chart_does(services):
    """No capability, no new rights, a read-only root; no port is open to the network."""
    for name in ("worker", "topics", "page"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["read_only"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert len(ports) == 6
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_serves_the_page_with_a_token(services):
    """The command is one that callmood accepts, its port is the one that is open, and the token is a mounted file."""
    page = services["page"]
    parser = argparse.ArgumentParser()
    dashboard.add_arguments(parser)
    name, *words = page["command"]
    arguments = parser.parse_args(words)
    assert (name, page["ports"]) == ("dashboard", [f"127.0.0.1:{arguments.port}:{arguments.port}"])
    (config,) = page["configs"]
    assert str(arguments.token_file) == config["target"]
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["configs"][config["source"]]["content"]
    assert len(content.partition(":-")[2].rstrip("}")) >= SHORTEST_TOKEN


def test_compose_names_what_there_is(services):
    """Images have versions, Kafka's and ours those of the repository; what is mounted exists."""
    versions = dict(one["image"].split(":") for one in services.values())
    assert "latest" not in versions.values()
    assert f"<version>{versions['apache/kafka']}</version>" in (DEPLOY / "local/pom.xml").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions["callmood/worker"] == project["version"]
    mounted = [volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])]
    assert all((DEPLOY / path).exists() for path in mounted if path.startswith("."))
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["worker:8080"]


def test_the_dockerfile_copies_what_is_not_ignored():
    """Everything the Dockerfile copies from the repository passes .dockerignore."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert len(sources) > 6
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed), source
