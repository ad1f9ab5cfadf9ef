"""The chart, rendered by Helm: what every case comes to, and what is refused."""

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from charting import VERSIONS, HelmError, of, pods

from callmood.worker.call.rule import parse_rules
from callmood.worker.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "callmood"
CASES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))


def settings_of(objects, monkeypatch, name="voice-callmood"):
    """The worker's settings, read from the ConfigMap as a container would read them."""
    (values,) = [one["data"] for one in objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name]
    for key, value in values.items():
        assert isinstance(value, str)
        monkeypatch.setenv(key, value)
    return Settings()


@pytest.mark.parametrize("case", CASES)
def test_every_case_passes_lint(helm, case):
    """`helm lint --strict` has nothing to say of any case."""
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", CHART / "ci" / case)


@pytest.mark.parametrize("case", CASES)
def test_the_rules_of_every_case_are_rules(case):
    """A case that somebody copies has alert rules that the worker reads."""
    written = yaml.safe_load((CHART / "ci" / case).read_text()).get("alertRules", "")
    assert bool(parse_rules(written)) == bool(written)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid_for_kubernetes(render, case, version):
    """Each object of Kubernetes fits the API of several versions, without an unknown field."""
    checked = 0
    for one in render(case, "--kube-version", version):
        if one["apiVersion"].partition("/")[0] not in ("keda.sh", "monitoring.coreos.com", "gateway.networking.k8s.io"):
            kubernetes_validate.validate(one, version, strict=True)
            checked += 1
    assert checked >= 5


@pytest.mark.parametrize("case", CASES)
def test_every_pod_keeps_to_the_restricted_standard(render, case):
    """No root, no privileges, nothing writable but scratch, no token: in the worker's, the job's and the test's pod."""
    seen = 0
    for _, spec, container in pods(render(case)):
        seen += 1
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert all(
            set(volume) & {"emptyDir", "secret", "configMap", "persistentVolumeClaim"} for volume in spec["volumes"]
        )
        names = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names
    assert seen >= 2


@pytest.mark.parametrize("case", CASES)
def test_the_settings_of_every_case_are_settings_of_the_worker(render, case, monkeypatch):
    """What the ConfigMap says is read by the worker's own settings and means what the values said."""
    objects = render(case)
    component = "app.kubernetes.io/component"
    workload = next(spec for metadata, spec, _ in pods(objects) if metadata["labels"].get(component) == "worker")
    for entry in workload["containers"][0]["env"]:
        if entry["name"].startswith("CALLMOOD_"):
            monkeypatch.setenv(entry["name"], "redis://x" if entry["name"].endswith("URL") else "x")
    read = settings_of(objects, monkeypatch)
    values = yaml.safe_load((CHART / "ci" / case).read_text())
    for group, settings in values.get("config", {}).items():
        for name, value in settings.items():
            found = getattr(getattr(read, group), name)
            found = found.get_secret_value() if hasattr(found, "get_secret_value") else found
            if (group, name) != ("redis", "url"):
                assert json.loads(json.dumps(found, default=str)) == value, (group, name)
    assert read.kafka.membership == values.get("membership", "dynamic")
    assert read.model.device == ("cuda" if values.get("gpu", {}).get("enabled", True) else "cpu")
    wanted_s = read.worker.drain_timeout_s
    assert wanted_s + 5 <= workload["terminationGracePeriodSeconds"] <= wanted_s + 20
    assert workload["containers"][0]["ports"][0]["containerPort"] == read.worker.health_port


def test_a_gpu_is_taken_tolerated_and_may_be_a_slice(render):
    """A worker takes the resource that is named, in whole numbers, under limits, and tolerates its taint."""
    _, spec, container = next(pods(render("gpu-keda-values.yaml")))
    assert container["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert container["resources"]["limits"]["memory"] == "8Gi"
    assert {"key": "nvidia.com/mig-1g.10gb", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert spec["runtimeClassName"] == "nvidia"
    assert container["image"].startswith("registry.example.com/callmood/worker@sha256:0123")
    _, spec, container = next(pods(render("cpu-values.yaml")))
    assert "nvidia" not in json.dumps([spec.get("tolerations"), container["resources"]])


def test_autoscaling_follows_the_age_of_audio(render):
    """KEDA asks for the worker's own metric; a pool of 0 starts at a computed number of unread records."""
    objects = render("gpu-keda-values.yaml")
    scaled = of(objects, "ScaledObject")["spec"]
    age, wake = scaled["triggers"]
    assert "callmood_oldest_unprocessed_audio_seconds" in age["metadata"]["query"]
    assert 'namespace="calls"' in age["metadata"]["query"]
    assert wake["metadata"]["activationLagThreshold"] == str(100 * 5 * 1000 // 200)
    assert wake["metadata"]["excludePersistentLag"] == "false"
    assert "replicas" not in of(objects, "Deployment")["spec"]
    hpa = of(render("hpa-values.yaml"), "HorizontalPodAutoscaler")["spec"]
    assert hpa["minReplicas"] == 2
    assert hpa["metrics"][0]["pods"]["metric"]["name"] == "callmood_oldest_unprocessed_audio_seconds"


@pytest.mark.parametrize(
    ("protocol", "mechanism", "expected"),
    [
        ("SSL", None, {"tls": "enable"}),
        ("SASL_PLAINTEXT", "PLAIN", {"sasl": "plaintext"}),
        ("SASL_SSL", "SCRAM-SHA-256", {"tls": "enable", "sasl": "scram_sha256"}),
        ("SASL_SSL", "SCRAM-SHA-512", {"tls": "enable", "sasl": "scram_sha512"}),
        ("SASL_SSL", "OAUTHBEARER", {"tls": "enable", "sasl": "oauthbearer"}),
    ],
)
def test_the_scaler_logs_in_as_workers_do(render, protocol, mechanism, expected):
    """KEDA's names for the way into Kafka follow from the worker's settings; a TriggerAuthentication says who it is."""
    values = ["--set", f"config.kafka.security_protocol={protocol}", "--set", "autoscaling.kafkaAuthentication=waker"]
    values += ["--set", f"config.kafka.sasl_mechanism={mechanism}"] if mechanism else []
    wake = of(render("gpu-keda-values.yaml", *values), "ScaledObject")["spec"]["triggers"][1]
    assert {name: wake["metadata"].get(name) for name in ("tls", "sasl") if name in wake["metadata"]} == expected
    assert wake["authenticationRef"] == {"name": "waker"}


def test_a_pool_that_could_never_scale_up_is_refused(helm):
    """Where Kafka asks who KEDA is, the value that is missing is named."""
    values = ("--set", "config.kafka.security_protocol=SASL_SSL", "--set", "config.kafka.sasl_mechanism=PLAIN")
    case = CHART / "ci" / "gpu-keda-values.yaml"
    with pytest.raises(HelmError, match=r"autoscaling\.kafkaAuthentication"):
        helm("template", "voice", CHART, "--values", case, *values)


def test_static_members_are_a_stateful_set(render, monkeypatch):
    """Static membership: stable names, a headless service, no autoscaling; the worker is told."""
    objects = render("secure-static-values.yaml")
    workload = of(objects, "StatefulSet")
    assert workload["spec"]["serviceName"] == of(objects, "Service")["metadata"]["name"]
    assert of(objects, "Service")["spec"]["clusterIP"] == "None"
    assert workload["spec"]["replicas"] == 3
    names = {entry["name"]: entry for entry in workload["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert names["CALLMOOD_WORKER__NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert names["CALLMOOD_REDIS__URL"]["valueFrom"]["secretKeyRef"]["name"] == "callmood-redis"
    assert settings_of(objects, monkeypatch).kafka.membership == "static"
    assert all(
        one["metadata"]["labels"]["team"] == "voice"
        for one in objects
        if one["metadata"]["name"] != "voice-callmood-more"
    )


def test_no_secret_is_in_a_config_map(render):
    """What comes from secrets is only ever named, by variable or by file; the file is where the pod finds it."""
    objects = render("secure-static-values.yaml")
    text = json.dumps([one for one in objects if one["kind"] == "ConfigMap"])
    assert not re.search(r'PASSWORD"', text)
    assert '"CALLMOOD_KAFKA__SASL_PASSWORD_FILE": "/etc/callmood/secrets/password"' in text
    _, pod, container = next(pods([of(objects, "StatefulSet")]))
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/etc/callmood/secrets"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    assert volume["secret"]["secretName"] == "callmood-kafka"
    assert "subPath" not in mount, "a file mounted alone would never change"


# The value that is broken, as helm takes it, and what the error must name.
BROKEN = {
    "replicas": ("-1", "replicas"),
    "membership": ('"sticky"', "membership"),
    "image.digest": ('"sha256:short"', "digest"),
    "gpu.count": ("0", "count"),
    "gpu.resource": ('"gpu"', "resource"),
    "model.source": ('"s3"', "source"),
    "autoscaling.kind": ('"vpa"', "kind"),
    "autoscaling.maxReplicas": ('"many"', "maxReplicas"),
    "probes.startupSeconds": ("1", "startupSeconds"),
    "graceSeconds": ("0", "graceSeconds"),
    "config.kafka.membership": ('"static"', "membership"),
    "config.kafka.bootstrap": ('"kafka:9092"', "bootstrap"),
    "config.segment.vad_mode": ("7", "vad_mode"),
    "config.redis.url": ('"redis://worker:secret@redis"', "url"),
    "config.kafka.sasl_password": ('"secret"', "sasl_password"),
    "config.worker.drain_timeout_s": ('"soon"', "drain_timeout_s"),
    "secretEnv": ('[{"name": "PASSWORD", "secretName": "x", "key": "y"}]', "secretEnv"),
    "podMonitor.interval": ('"often"', "interval"),
    "networkPolicy.kafkaPorts": ("[70000]", "kafkaPorts"),
    "replica": ("3", "replica"),
    "topicsJob.partitions": ("0", "partitions"),
}


@pytest.mark.parametrize("value", BROKEN)
def test_a_wrong_value_is_reported(helm, refused, value):
    """An unknown name, a wrong type and an impossible value are refused before anything is rendered, by name."""
    broken, named = BROKEN[value]
    with pytest.raises(refused) as error:
        helm("template", "voice", CHART, "--set-json", f"{value}={broken}")
    assert re.search(rf"\b{named}\b", str(error.value)), str(error.value)
    assert "schema" in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"membership": "static", "autoscaling.enabled": True, "autoscaling.kind": "hpa"},
        {"autoscaling.enabled": True},
        {"model.source": "volume"},
        {"model.source": "hub", "model.path": "hf://example/model@main"},
        {"page.enabled": True},
    ],
    ids=[
        "static and autoscaled",
        "keda without prometheus",
        "a volume without a claim",
        "a model without a commit",
        "a page without a token",
    ],
)
def test_values_that_contradict_each_other_are_refused(render, refused, values):
    """What fits one by one and not together is refused, too."""
    with pytest.raises(refused, match="schema"):
        render(values)


def test_an_upgrade_keeps_what_cannot_be_changed(render):
    """Other replicas, image and settings leave selectors, service name and names alone, and restart the pods."""
    before = of(render({"membership": "static"}), "StatefulSet")
    after = of(
        render({"membership": "static", "replicas": 5, "image.tag": "9.9.9", "config.log.level": "debug"}),
        "StatefulSet",
    )
    for path in ("selector", "serviceName", "podManagementPolicy"):
        assert before["spec"][path] == after["spec"][path]
    assert before["metadata"]["name"] == after["metadata"]["name"]
    annotation = "checksum/settings"
    template = "template"
    assert (
        before["spec"][template]["metadata"]["annotations"][annotation]
        != after["spec"][template]["metadata"]["annotations"][annotation]
    )


def test_the_selector_has_no_version(render):
    """A selector names what never changes: not chart, version or labels of one's own."""
    selector = of(render({"commonLabels": {"team": "voice"}}), "Deployment")["spec"]["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}


def test_a_denied_network_lets_the_needed_through(render):
    """Default deny: DNS, the ports of Kafka and Redis to where they are, and metrics to whom they are for."""
    policy = of(render("secure-static-values.yaml"), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    dns, stores = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in stores["ports"]} == {9092, 9093, 6379}
    assert stores["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    assert policy["ingress"][0]["ports"] == [{"port": 9090}]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector.example.com:4318", 4318), ("https://traces.example.com", 443), ("http://localhost/otlp", 80)],
)
def test_a_denied_network_lets_spans_out(render, endpoint, port):
    """With a collector the port of its address is open too, whether it is written out or not."""
    values = ("--set", f"config.trace.endpoint={endpoint}")
    *_, collector = of(render("secure-static-values.yaml", *values), "NetworkPolicy")["spec"]["egress"]
    assert collector == {"ports": [{"port": port}]}
