#!/usr/bin/env python3
"""Writes deploy/kustomize/ out of the chart deploy/helm/swaa, by helm (tools/setup kubernetes).

    tools/make_manifests.py [FOLDER]      default: deploy/kustomize

`base` is what the chart makes of deploy/helm/values/base.yaml. Each other file there becomes a
component: what the chart adds or changes with these values on top. Changes are JSON patches that only
append to lists, so that components combine. Each has an overlay: base and this component alone.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "swaa"
VALUES = ROOT / "deploy" / "helm" / "values"
KUBERNETES = pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "swaa" / "kubernetes"
# Of Helm's, not of what it installs.
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
# deploy/grafana/kustomization.yaml makes them of the files themselves.
DASHBOARDS = "swaa-dashboard-"
# A workload's kind depends on whether experiments keep something; only a Deployment has a strategy.
WORKLOADS = ("Deployment", "StatefulSet")
STRATEGY = "/spec/strategy/"
HEADER = "# Made by tools/make_manifests.py of deploy/helm.\n"


class Dumper(yaml.SafeDumper):
    """Texts of several lines as such, and nothing by reference."""

    def ignore_aliases(self, data):
        return True


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def dump(*objects):
    return yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=True)


def render(*values, settings=()):
    """The chart's objects, by (kind, name), without Helm's labels. `values`: names in VALUES or paths."""
    command = [KUBERNETES / "helm", "template", "swaa", CHART, "--namespace", "default"]
    for value in values:
        command += ["--values", value if os.sep in str(value) else VALUES / f"{value}.yaml"]
    for setting in settings:
        command += ["--set", setting]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr)
    objects = {}
    for found in yaml.safe_load_all(ran.stdout):
        if found:
            for label in HELM_LABELS:
                found["metadata"]["labels"].pop(label, None)
            objects[found["kind"], found["metadata"]["name"]] = found
    return objects


def patch(old, new, path=""):
    """The JSON patch from `old` to `new`."""
    def under(key):
        return f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"

    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        steps = [{"op": "remove", "path": under(key)} for key in old if key not in new]
        for key, value in new.items():
            if key in old:
                steps += patch(old[key], value, under(key))
            else:
                steps.append({"op": "add", "path": under(key), "value": value})
        return steps
    if isinstance(old, list) and isinstance(new, list) and len(old) <= len(new):
        steps = [step for i, (a, b) in enumerate(zip(old, new)) for step in patch(a, b, under(i))]
        return steps + [{"op": "add", "path": under("-"), "value": value}
                        for value in new[len(old):]]
    return [{"op": "replace", "path": path, "value": new}]


def write(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(HEADER + text, encoding="utf-8")


def file_name(identity):
    return f"{identity[0].lower()}-{identity[1]}.yaml"


def write_base(folder, objects):
    for identity, found in objects.items():
        write(folder, file_name(identity), dump(found))
    write(folder, "kustomization.yaml", dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": sorted(map(file_name, objects))}))


def write_component(folder, name, base, objects):
    about = (VALUES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0] + "\n"
    resources, patches = [], []
    boards = [identity for identity in objects if identity[1].startswith(DASHBOARDS)]
    for identity, found in objects.items():
        if identity in boards or base.get(identity) == found:
            continue
        if identity not in base:
            write(folder, file_name(identity), dump(found))
            resources.append(file_name(identity))
            continue
        kind = "|".join(WORKLOADS) if identity[0] in WORKLOADS else identity[0]
        steps = patch(base[identity], found)
        for kinds, part, file in (
            (kind, [step for step in steps if not step["path"].startswith(STRATEGY)],
             f"patch-{file_name(identity)}"),
            (identity[0], [step for step in steps if step["path"].startswith(STRATEGY)],
             f"patch-strategy-{file_name(identity)}")):
            if part:
                write(folder, file, dump(part))
                target = {"kind": kinds, "name": f"^{identity[1]}$"}
                patches.append({"target": target, "path": file})
    for kind, gone in base.keys() - objects.keys():
        api = base[kind, gone]["apiVersion"]
        patches.append({"patch": dump({"$patch": "delete", "apiVersion": api, "kind": kind,
                                       "metadata": {"name": gone}})})
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    resources.sort()
    if boards:
        resources.append("../../../grafana")
    if resources:
        kustomization["resources"] = resources
    if patches:
        kustomization["patches"] = patches
    write(folder, "kustomization.yaml", about + dump(kustomization))


def write_overlay(folder, name, components):
    about = (VALUES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0] + "\n"
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
                     "resources": ["../../base"]}
    if components:
        kustomization["components"] = [f"../../components/{part}" for part in components]
    write(folder, "kustomization.yaml", about + dump(kustomization))


def component_names():
    return sorted(path.stem for path in VALUES.glob("*.yaml") if path.stem != "base")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "deploy" / "kustomize"
    for part in ("base", "components", "overlays"):
        shutil.rmtree(folder / part, ignore_errors=True)
    base = render("base")
    write_base(folder / "base", base)
    write_overlay(folder / "overlays" / "cpu", "base", [])
    for name in component_names():
        write_component(folder / "components" / name, name, base, render("base", name))
        write_overlay(folder / "overlays" / name, name, [name])


if __name__ == "__main__":
    main()
