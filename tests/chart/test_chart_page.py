"""The page for supervisors in the chart."""

import argparse

import kubernetes_validate
import pytest
from charting import VERSIONS, of, pods

from callmood.worker.commands import dashboard

PAGE = {
    "page.enabled": True,
    "page.tokenSecret.name": "page-token",
    "page.listen": "https://phone.example.com/?call={call}",
    "networkPolicy.enabled": True,
    "model.source": "volume",
    "model.claimName": "models",
    "alertRules": "x = 1",
}


def named(objects, kind, name="voice-callmood-page"):
    """The object of this kind and name."""
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_its_objects_are_valid_for_kubernetes(render, version):
    """Deployment, Service and NetworkPolicy fit the API of several versions."""
    objects = render(PAGE, "--kube-version", version)
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        kubernetes_validate.validate(named(objects, kind), version, strict=True)


def test_its_command_is_one_that_callmood_accepts(render):
    """Arguments, ports and the mounted token fit together."""
    deployment = named(render(PAGE), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    name, *words = container["args"]
    parser = argparse.ArgumentParser()
    dashboard.add_arguments(parser)
    arguments = parser.parse_args(words)
    assert name == "dashboard"
    assert (arguments.host, arguments.listen) == ("0.0.0.0", PAGE["page.listen"])
    assert container["ports"][0]["containerPort"] == arguments.port
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(arguments.token_file) == f"{mounts['page-token']}/token"
    service = named(render(PAGE), "Service")["spec"]
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert service["selector"] == deployment["spec"]["selector"]["matchLabels"]


def test_viewers_can_be_limited_to_their_queues(render):
    """The secret can hold an access file, and a proxy can name the queues."""
    limited = PAGE | {"page.isAccessFile": True, "page.queueHeader": "X-Queues"}
    (container,) = named(render(limited), "Deployment")["spec"]["template"]["spec"]["containers"]
    parser = argparse.ArgumentParser()
    dashboard.add_arguments(parser)
    arguments = parser.parse_args(container["args"][1:])
    assert (arguments.token_file, str(arguments.access_file)) == (None, "/etc/callmood/page/token")
    assert arguments.queue_header == "X-Queues"


def test_it_takes_neither_a_gpu_nor_the_model(render):
    """Only the workers need them, and no worker is chosen by the page's selector."""
    objects = render(PAGE | {"gpu.enabled": True, "gpu.runtimeClassName": "nvidia"})
    pod = named(objects, "Deployment")["spec"]["template"]["spec"]
    assert "runtimeClassName" not in pod
    assert "nvidia" not in str(pod.get("tolerations"))
    assert {"models", "rules"}.isdisjoint(volume["name"] for volume in pod["volumes"])
    worker = named(objects, "Deployment", "voice-callmood")
    assert worker["spec"]["selector"] != named(objects, "Deployment")["spec"]["selector"]


def test_without_the_page_there_is_nothing_of_it(render):
    """It is off by default."""
    assert not [one for one in render({}) if one["metadata"]["name"].endswith("-page")]
    assert of(render({}), "Deployment")


def test_its_pod_keeps_to_the_restricted_standard(render):
    """As every pod of the chart does."""
    for _, spec, container in pods([named(render(PAGE), "Deployment")]):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
