"""A small client of the Kubernetes API, and Helm pointed at it."""

import json
import os
import subprocess
import time

import requests

_TIMEOUT_S = 30


class RefusedError(Exception):
    """The API server does not take it; its words."""


class Cluster:
    """One API server, as its administrator.

    Args:
        url: where it is.
        token: who we are.
        certificate: what it shows.
        folder: for the file that Helm reads.
    """

    def __init__(self, url, token, certificate, folder):
        self.namespace = "default"
        self._url, self._certificate = url, certificate
        self._headers = {"Authorization": f"Bearer {token}"}
        self._resources = {}
        self._config = folder / "kubeconfig"
        server = {"server": url, "certificate-authority": str(certificate)}
        self._config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": server}],
                    "users": [{"name": "admin", "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )

    # -- requests

    def _request(self, method, path, **more):
        more["headers"] = self._headers | more.get("headers", {})
        return requests.request(method, self._url + path, verify=str(self._certificate), timeout=_TIMEOUT_S, **more)

    def get(self, path):
        """The plain answer."""
        return self._request("GET", path)

    def _told(self, answer):
        if not answer.ok:
            raise RefusedError(answer.text)
        return answer.json()

    def _path(self, api_version, kind, name=""):
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        if (api_version, kind) not in self._resources:
            for one in self._told(self.get(root))["resources"]:
                if "/" not in one["name"]:
                    self._resources[api_version, one["kind"]] = one
        resource = self._resources[api_version, kind]
        place = f"/namespaces/{self.namespace}" if resource["namespaced"] else ""
        return f"{root}{place}/{resource['name']}" + (f"/{name}" if name else "")

    def wait_for(self, api_version, kind):
        """Wait until a resource that was defined just now is served."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                return self._path(api_version, kind)
            except (RefusedError, KeyError):
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    # -- objects

    def apply(self, one):
        """Server-side apply, by which a field that the server does not know is an error; the object as it is then."""
        path = self._path(one["apiVersion"], one["kind"], one["metadata"]["name"])
        query = {"fieldManager": "test", "fieldValidation": "Strict", "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self._told(self._request("PATCH", path, params=query, headers=headers, data=json.dumps(one)))

    def create(self, one):
        """As a controller creates a pod."""
        path = self._path(one["apiVersion"], one["kind"])
        return self._told(self._request("POST", path, params={"fieldValidation": "Strict"}, json=one))

    def read(self, api_version, kind, name):
        """The object, or None."""
        answer = self.get(self._path(api_version, kind, name))
        return None if answer.status_code == requests.codes.not_found else self._told(answer)

    def set_status(self, one, status):
        """What a controller would report."""
        path = self._path(one["apiVersion"], one["kind"], one["metadata"]["name"]) + "/status"
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._told(self._request("PATCH", path, headers=headers, data=json.dumps({"status": status})))

    # -- Helm

    def helm(self, *arguments):
        """Helm against this API; returns the process, which still runs."""
        return subprocess.Popen(
            ["helm", *map(str, arguments), "--namespace", self.namespace],
            env=os.environ | {"KUBECONFIG": str(self._config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ran(self, *arguments):
        """What Helm said.

        Raises:
            RefusedError: it failed.
        """
        process = self.helm(*arguments)
        told, _ = process.communicate(timeout=120)
        if process.returncode:
            raise RefusedError(told)
        return told
