"""The manifests as helm and kubectl make them, and what Kubernetes' API says of them."""

import functools
import json
import subprocess

import jsonschema
import yaml

import make_manifests

VERSIONS = ["v1.32", "v1.35", "v1.37"]
# Served by operators, not by Kubernetes itself.
FOREIGN = {"PodMonitor", "PrometheusRule", "ScaledObject"}

assert (make_manifests.KUBERNETES / "kubectl").exists(), "run tools/setup kubernetes"


def kustomize(folder):
    """The objects of a kustomization, by (kind, name)."""
    ran = subprocess.run([make_manifests.KUBERNETES / "kubectl", "kustomize", folder],
                         capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return {(found["kind"], found["metadata"]["name"]): found
            for found in yaml.safe_load_all(ran.stdout)}


@functools.cache
def validator(version, name):
    """Of a kind's objects; None if this version has no such kind."""
    folder = make_manifests.KUBERNETES / "schemas" / version
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text(encoding="utf-8"))
    known = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    resolver = jsonschema.RefResolver(schema["$id"], schema, {known["$id"]: known})
    return jsonschema.Draft202012Validator(schema, resolver=resolver)


def api_errors(found, version):
    """What the API of this version refuses in an object, unknown fields included."""
    group, _, api = found["apiVersion"].rpartition("/")
    name = "-".join(filter(None, (found["kind"].lower(), group.split(".")[0], api)))
    judge = validator(version, name)
    if judge is None:
        return [f"{found['apiVersion']} {found['kind']}: {version} has no such kind"]
    return [f"{'.'.join(map(str, error.path))}: {error.message}"
            for error in judge.iter_errors(found)]


def pod_of(found):
    """The pod's specification in a workload."""
    return found["spec"]["template"]["spec"]


def restricted_errors(pod):
    """What Pod Security's level `restricted` (1.35) refuses in a pod's specification."""
    def of_pod(key):
        return pod.get("securityContext", {}).get(key)

    errors = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
               "projected", "secret"}
    errors += [f"volume {volume['name']}" for volume in pod.get("volumes", [])
               if not set(volume) - {"name"} <= allowed]
    errors += [key for key in ("sysctls", "windowsOptions") if of_pod(key)]
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container.get("securityContext", {})
        capabilities = security.get("capabilities", {})
        profile = (security.get("seccompProfile") or of_pod("seccompProfile") or {}).get("type")
        non_root = security.get("runAsNonRoot", of_pod("runAsNonRoot"))
        user = security.get("runAsUser", of_pod("runAsUser"))
        ports = [port for port in container.get("ports", []) if port.get("hostPort")]
        errors += [f"{container['name']}: {what}" for what, wrong in {
            "privileged": security.get("privileged"),
            "allowPrivilegeEscalation": security.get("allowPrivilegeEscalation") is not False,
            "capabilities": "ALL" not in capabilities.get("drop", []) or
                            set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
            "seccompProfile": profile not in ("RuntimeDefault", "Localhost"),
            "runAsNonRoot": non_root is not True,
            "runAsUser": user == 0,
            "hostPort": ports,
            "procMount": security.get("procMount", "Default") != "Default",
        }.items() if wrong]
    return errors
