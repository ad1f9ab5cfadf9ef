"""A real Kubernetes API: its server and etcd, with the resources of KEDA, Prometheus' operator and the Gateway API."""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import requests
import yaml
from charting import CHART
from kubernetes_api import Cluster

from deploy.local.nursery import Nursery, free_port

_NEEDED = "no Kubernetes API server: tests/cluster/apiserver/build /usr/local/bin"
_DEFINITIONS = {
    "github.com/kedacore/keda/v2@v2.18.1": ("config/crd/bases/keda.sh_*.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "sigs.k8s.io/gateway-api@v1.2.1": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
}


def _start(nursery, folder):
    client, peer, port = free_port(), free_port(), free_port()
    etcd = ["etcd", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync", "--logger", "zap"]
    for kind, at in (("client", client), ("peer", peer)):
        etcd += [f"--listen-{kind}-urls", f"http://127.0.0.1:{at}"]
    etcd += ["--advertise-client-urls", f"http://127.0.0.1:{client}"]
    etcd += ["--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"]
    etcd += ["--initial-cluster", f"default=http://127.0.0.1:{peer}"]
    nursery.start("etcd", etcd)
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens").write_text("admin-token,admin,1,system:masters\n")
    options = {
        "etcd-servers": f"http://127.0.0.1:{client}",
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": folder / "certificates",
        "token-auth-file": folder / "tokens",
        "authorization-mode": "RBAC",
        "service-account-issuer": "https://accounts.example.com",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
        "service-cluster-ip-range": "10.0.0.0/24",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    server = nursery.start("kube-apiserver", ["kube-apiserver", *flags])
    cluster = Cluster(f"https://127.0.0.1:{port}", "admin-token", folder / "certificates" / "apiserver.crt", folder)

    def is_ready():
        with suppress(requests.RequestException, OSError):
            return cluster.get("/readyz").ok
        return False

    server.wait_ready(is_ready, timeout_s=90)
    return cluster


def _define(cluster):
    """Teach it the resources of others, from their released sources, and that there are GPUs."""
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}}
    cluster.apply(runtime | {"handler": "nvidia"})
    for module, patterns in _DEFINITIONS.items():
        done = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True)
        source = Path(json.loads(done.stdout)["Dir"])
        for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
            for one in yaml.safe_load_all(path.read_text()):
                if one:
                    cluster.apply(one)
    cluster.wait_for("keda.sh/v1alpha1", "ScaledObject")
    cluster.wait_for("monitoring.coreos.com/v1", "PrometheusRule")
    cluster.wait_for("gateway.networking.k8s.io/v1", "HTTPRoute")


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory, helm):
    assert helm
    if missing := [name for name in ("kube-apiserver", "etcd", "go") if shutil.which(name) is None]:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{_NEEDED} (missing: {', '.join(missing)})")
    with Nursery() as nursery:
        cluster = _start(nursery, tmp_path_factory.mktemp("cluster"))
        _define(cluster)
        yield cluster


@pytest.fixture
def cluster(_cluster):
    """The API, with a namespace of this test's own that takes nothing but restricted pods."""
    name = f"calls-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    _cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    _cluster.namespace = name
    _cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
    return _cluster


@pytest.fixture(scope="session")
def objects(helm):
    """`objects(case, namespace, *more)`: what Helm makes of a case of the chart."""

    def render(case, namespace, *more):
        text = helm("template", "voice", CHART, "--namespace", namespace, "--values", CHART / "ci" / case, *more)
        return [one for one in yaml.safe_load_all(text) if one]

    return render
