"""The chart on a real API server: what it takes, what an upgrade changes, and what a rollback brings back."""

import copy
import time

import pytest
from charting import CHART
from kubernetes_api import RefusedError

pytestmark = pytest.mark.timeout(180)

CASES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))


def pods(objects):
    """Each pod that would come of these objects."""
    for one in objects:
        template = one if one["kind"] == "Pod" else one.get("spec", {}).get("template")
        if template and "containers" in template["spec"]:
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": one["metadata"]["name"], "labels": template["metadata"]["labels"]},
                "spec": template["spec"],
            }


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_accepts_every_object(cluster, objects, case):
    """Server-side apply with strict fields takes all of them, KEDA's and Prometheus' too; again, it changes nothing."""
    rendered = objects(case, cluster.namespace)
    first = [cluster.apply(one) for one in rendered]
    again = [cluster.apply(one) for one in rendered]
    versions = [[one["metadata"]["resourceVersion"] for one in time_] for time_ in (first, again)]
    assert versions[0] == versions[1]
    assert {one["kind"] for one in rendered} & {"Deployment", "StatefulSet"}


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_a_restricted_one(cluster, objects, case):
    """The namespace enforces the Pod Security level `restricted`, and takes each pod; with more rights it does not."""
    rendered = objects(case, cluster.namespace)
    for one in rendered:
        if one["kind"] == "ServiceAccount":
            cluster.apply(one)
    made = 0
    for pod in pods(rendered):
        cluster.create(pod)
        made += 1
        worse = copy.deepcopy(pod)
        worse["metadata"]["name"] += "-worse"
        worse["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(RefusedError, match="allowPrivilegeEscalation"):
            cluster.create(worse)
    assert made >= 2


WRONG = {
    "Deployment": lambda one: one["spec"].update(replica=3),
    "ScaledObject": lambda one: one["spec"].update(minReplicaCount="two"),
    "PrometheusRule": lambda one: one["spec"]["groups"][0].pop("name"),
    "HTTPRoute": lambda one: one["spec"]["rules"][0]["timeouts"].update(request="for ever"),
    "NetworkPolicy": lambda one: one["spec"].update(policyType=["Egress"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_field_is_refused(cluster, objects, kind):
    """The server refuses what is misspelt, of the wrong type or missing: the test above can fail."""
    cases = [objects(case, cluster.namespace) for case in ("gpu-keda-values.yaml", "page-values.yaml")]
    one = next(one for case in cases for one in case if one["kind"] == kind)
    WRONG[kind](one)
    with pytest.raises(RefusedError):
        cluster.apply(one)


WORKLOADS = {"cpu-values.yaml": "Deployment", "secure-static-values.yaml": "StatefulSet"}


@pytest.mark.parametrize("case", WORKLOADS)
def test_a_rollback_undoes_an_upgrade(cluster, case):
    """`helm upgrade` with other replicas, image and settings keeps selector and identity; `helm rollback` undoes it."""
    values = ("--values", CHART / "ci" / case, "--no-hooks")

    def workload():
        found = cluster.read("apps/v1", WORKLOADS[case], "voice-callmood")
        container = found["spec"]["template"]["spec"]["containers"][0]
        return found, (found["spec"]["replicas"], container["image"])

    cluster.ran("install", "voice", CHART, *values)
    before, first = workload()
    changes = ("--set", "replicas=7,image.digest=,image.tag=9.9.9,config.worker.drain_timeout_s=44")
    cluster.ran("upgrade", "voice", CHART, *values, *changes)
    after, second = workload()
    assert second[0] == 7
    assert second[1].endswith(":9.9.9")
    assert after["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 44 + 15
    assert after["spec"]["template"] != before["spec"]["template"], "pods with old settings would stay"
    cluster.ran("rollback", "voice", "1", "--no-hooks")
    back, third = workload()
    assert third == first
    for kept in (after, back):
        assert kept["metadata"]["uid"] == before["metadata"]["uid"]
        assert kept["spec"]["selector"] == before["spec"]["selector"]
    assert back["spec"]["template"] == before["spec"]["template"]
    cluster.ran("uninstall", "voice", "--no-hooks")
    assert cluster.read("apps/v1", WORKLOADS[case], "voice-callmood") is None


def job_of(cluster):
    """The job that makes topics, once Helm has created it."""
    deadline_s = time.monotonic() + 30
    while (job := cluster.read("batch/v1", "Job", "voice-callmood-topics")) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    return job


def finish(cluster, job, *, well):
    """Report what the job's controller would."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kinds = ("SuccessCriteriaMet", "Complete") if well else ("FailureTarget", "Failed")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now, "reason": "Test"} for kind in kinds]
    status = {"startTime": now, "conditions": conditions, "uncountedTerminatedPods": {}}
    status |= {"completionTime": now, "succeeded": 1} if well else {"failed": 4}
    cluster.set_status(job, status)


@pytest.mark.parametrize("well", [True, False], ids=["well", "badly"])
def test_workers_start_only_after_their_topics_exist(cluster, well):
    """Helm waits for the job that makes topics; only if that ends well is there a workload, and the job is gone."""
    values = ("--values", CHART / "ci" / "gpu-keda-values.yaml")
    helm = cluster.helm("install", "voice", CHART, *values)
    job = job_of(cluster)
    assert cluster.read("apps/v1", "Deployment", "voice-callmood") is None
    finish(cluster, job, well=well)
    told, _ = helm.communicate(timeout=60)
    assert (helm.returncode == 0) == well, told
    assert (cluster.read("apps/v1", "Deployment", "voice-callmood") is not None) == well
