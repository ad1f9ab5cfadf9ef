"""Webhooks in the chart, and the route to the page."""

import argparse

import kubernetes_validate
import pytest
from charting import VERSIONS, of, pods

from callmood.worker.commands import webhooks

WEBHOOKS = {
    "webhooks.enabled": True,
    "webhooks.secret.name": "hooks",
    "networkPolicy.enabled": True,
    "model.source": "volume",
    "model.claimName": "models",
}
PAGE = {"page.enabled": True, "page.tokenSecret.name": "page-token"}
NAME = "voice-callmood-webhooks"


def named(objects, kind, name=NAME):
    """The object of this kind and name."""
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_its_objects_are_valid_for_kubernetes(render, version):
    """Deployment and NetworkPolicy fit the API of several versions."""
    objects = render(WEBHOOKS, "--kube-version", version)
    for kind in ("Deployment", "NetworkPolicy"):
        kubernetes_validate.validate(named(objects, kind), version, strict=True)


def test_its_command_reads_the_mounted_secret(render):
    """The addresses and signing keys come from the secret, and stand nowhere else."""
    deployment = named(render(WEBHOOKS), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    parser = argparse.ArgumentParser()
    webhooks.add_arguments(parser)
    name, *words = container["args"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (name, str(parser.parse_args(words).hooks)) == ("webhooks", f"{mounts['webhooks']}/hooks.toml")
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "webhooks"]
    assert volume["secret"]["secretName"] == "hooks"
    assert {"models", "rules"}.isdisjoint(volume["name"] for volume in pod["volumes"])


def test_one_pod_sends_at_a_time(render):
    """An update ends the old one first, with time for a request that is on its way."""
    spec = named(render(WEBHOOKS), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 10
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["selector"] != named(render(WEBHOOKS), "Deployment", "voice-callmood")["spec"]["selector"]


def test_its_policy_lets_it_reach_the_receivers(render):
    """The chart's own policy allows Kafka and Redis only; policies add up."""
    policy = named(render(WEBHOOKS | {"webhooks.ports": [443, 8443]}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Egress"]
    assert policy["egress"] == [{"ports": [{"port": 443}, {"port": 8443}]}]
    assert policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "webhooks"


def test_its_pod_keeps_to_the_restricted_standard(render):
    """As every pod of the chart does."""
    for _, spec, container in pods([named(render(WEBHOOKS), "Deployment")]):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_route_leads_to_the_page_and_keeps_streams_open(render):
    """It has the gateway and the host names, and no limit on the length of a request."""
    more = {"page.httpRoute.enabled": True, "page.httpRoute.hostnames": ["callmood.example.com"]}
    objects = render(PAGE | more | {"page.httpRoute.parentRefs": [{"name": "public", "namespace": "gateways"}]})
    route, service = of(objects, "HTTPRoute")["spec"], named(objects, "Service", "voice-callmood-page")
    assert (route["parentRefs"][0]["name"], route["hostnames"]) == ("public", ["callmood.example.com"])
    (rule,) = route["rules"]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": service["spec"]["ports"][0]["port"]}]
    assert rule["timeouts"] == {"request": "0s"}


@pytest.mark.parametrize(
    "wrong", [{"webhooks.enabled": True}, PAGE | {"page.httpRoute.enabled": True}], ids=["secret", "gateway"]
)
def test_what_is_missing_is_refused(render, refused, wrong):
    """Webhooks need a secret, a route a gateway."""
    with pytest.raises(refused):
        render(wrong)


def test_both_are_off_by_default(render):
    """Also with the page."""
    objects = render(PAGE)
    assert not [one for one in objects if one["kind"] == "HTTPRoute" or one["metadata"]["name"].endswith("-webhooks")]
