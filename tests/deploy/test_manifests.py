"""The chart and the kustomizations: rendered by helm and kubectl, judged by Kubernetes' own schemas."""

import copy
import filecmp
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
import yaml

import make_manifests
import manifests
from make_manifests import CHART, KUBERNETES, ROOT, render
from manifests import FOREIGN, VERSIONS, api_errors, kustomize, pod_of, restricted_errors

KUSTOMIZE = ROOT / "deploy" / "kustomize"
COMPONENTS = make_manifests.component_names()
# Settings on top of values files: what no overlay has.
SETTINGS = {
    "everything": (("base", "gpu", "gateway", "monitoring", "experiments"), [
        "autoscaling.kind=keda", "gpu.count=2", "gpu.runtimeClassName=nvidia", "priorityClassName=high",
        "imagePullSecrets[0].name=registry", "nodeSelector.disk=fast", "podLabels.team=text",
        "podAnnotations.note=x", "service.annotations.note=x", "model.servedName=m",
        "experiments.storageClassName=local", "tolerations[0].operator=Exists",
        "monitoring.labels.release=prometheus", "resources.requests.cpu=2",
        "image.digest=sha256:" + "a" * 64,
        "networkPolicy.clients[0].namespaceSelector.matchLabels.team=text"]),
    "bare": (("fetch",), ["networkPolicy.enabled=false", "topologySpread=false"]),
    "secret": (("base",), ["tls.secret=t", "tls.clientAuthority=true", "secretVolumes[0].secret=keys",
                           "secretVolumes[0].mountPath=/etc/swaa-keys"]),
}


def variants():
    found = {name: ("base", name) for name in COMPONENTS}
    made = {name: render(*values) for name, values in found.items()}
    made["base"] = render("base")
    for name, (values, settings) in SETTINGS.items():
        made[name] = render(*values, settings=settings)
    return made


@pytest.fixture(scope="module")
def rendered():
    return variants()


def workloads(rendered):
    return {(variant, kind): found for variant, objects in rendered.items()
            for (kind, _), found in objects.items() if kind in make_manifests.WORKLOADS}


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_the_kustomizations_are_what_the_chart_makes(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_manifests.py", tmp_path], check=True)
    made = files_below(tmp_path)
    assert made == files_below(KUSTOMIZE) and len(made) > 30, "run tools/make_manifests.py"
    for name in made:
        assert filecmp.cmp(tmp_path / name, KUSTOMIZE / name, shallow=False), \
            f"run tools/make_manifests.py: {name} is not what it makes"


@pytest.mark.parametrize("name", ["cpu", *COMPONENTS])
def test_an_overlay_is_the_chart_with_these_values(name, rendered):
    assert kustomize(KUSTOMIZE / "overlays" / name) == \
        rendered["base" if name == "cpu" else name]


@pytest.mark.parametrize("names", [
    ("experiments", "gpu", "gateway", "monitoring", "tls"),
    ("fetch", "gpu", "autoscaling", "gateway", "monitoring"),
])
def test_components_combine(names, tmp_path):
    shutil.copytree(KUSTOMIZE, tmp_path / "deploy" / "kustomize")
    shutil.copytree(ROOT / "deploy" / "grafana", tmp_path / "deploy" / "grafana")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(yaml.safe_dump({
        "namespace": "models", "resources": ["../deploy/kustomize/base"],
        "components": [f"../deploy/kustomize/components/{name}" for name in names]}))
    combined = kustomize(mine)
    binding = combined["RoleBinding", "swaa-gateway"]["subjects"][0]
    assert binding["namespace"] == "models", "the gateway's account is elsewhere"
    binding["namespace"] = "default"
    for found in combined.values():
        assert found["metadata"].pop("namespace") == "models"
    assert combined == render("base", *names)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_takes_everything(version, rendered):
    kinds, judged = set(), []
    for variant, objects in rendered.items():
        for (kind, name), found in objects.items():
            if kind not in FOREIGN and found not in judged:
                assert not api_errors(found, version), (variant, kind, name)
                judged.append(found)
            kinds.add(kind)
    assert kinds >= FOREIGN | {"Deployment", "StatefulSet", "HorizontalPodAutoscaler", "Role"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_refuses_what_is_misspelt(version, rendered):
    found = copy.deepcopy(rendered["base"]["Deployment", "swaa"])
    pod_of(found)["containers"][0]["readynessProbe"] = {}
    assert any("readynessProbe" in error for error in api_errors(found, version))
    found = copy.deepcopy(rendered["base"]["Deployment", "swaa"])
    pod_of(found)["terminationGracePeriodSeconds"] = "soon"
    assert any("soon" in error for error in api_errors(found, version))


def test_pod_security_restricted_takes_every_pod(rendered):
    for which, found in workloads(rendered).items():
        pod = pod_of(found)
        assert not restricted_errors(pod), which
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
        gateway = found["metadata"]["name"].endswith("-gateway")
        assert pod["automountServiceAccountToken"] is gateway, "only the gateway asks the API"


@pytest.mark.parametrize("change", [
    lambda pod: pod.update(hostNetwork=True),
    lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    lambda pod: pod["securityContext"].pop("seccompProfile"),
    lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    lambda pod: pod["securityContext"].update(runAsUser=0),
    lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"),
    lambda pod: pod["containers"][0]["ports"][0].update(hostPort=50051),
])
def test_pod_security_restricted_refuses(change, rendered):
    pod = copy.deepcopy(pod_of(rendered["base"]["Deployment", "swaa"]))
    change(pod)
    assert len(restricted_errors(pod)) == 1


@pytest.mark.parametrize("setting,says", [
    ("replica=3", "replica"),
    ("replicas=-1", "replicas"),
    ("replicas=two", "replicas"),
    ("image.tag=a b", "image/tag"),
    ("image.digest=sha256:12", "image/digest"),
    ("image.pullPolicy=Sometimes", "image/pullPolicy"),
    ("gpu.enabled=yes please", "gpu/enabled"),
    ("gpu.count=0", "gpu/count"),
    ("gpu.cards=2", "cards"),
    ("model.file=/models/x.gguf", "model/file"),
    ("model.fetch.url=ftp://models/x", "model/fetch/url"),
    ("model.fetch.url=https://models/x", "model/fetch"),
    ("model.volume.existingClaim=", "model"),
    ("drain.graceSeconds=30s", "drain/graceSeconds"),
    ("drain.preStopSeconds=0", "drain/preStopSeconds"),
    ("resources.limits.memory=8GB", "resources/limits/memory"),
    ("resources.limits.cpu=null", "cpu"),
    ("service.port=70000", "service/port"),
    ("autoscaling.kind=vpa", "autoscaling/kind"),
    ("autoscaling.kvCacheUsage=80", "autoscaling/kvCacheUsage"),
    ("gateway.image=smg", "gateway/image"),
    ("gateway.policy=best", "gateway/policy"),
    ("monitoring.interval=15", "monitoring/interval"),
    ("networkPolicy.clients[0].pods=x", "networkPolicy/clients/0"),
    ("config=text", "config"),
    ("tls.secret=Not A Name", "tls/secret"),
    ("access.tokens=abc", "access"),
    ("secretVolumes[0].secret=swaa-tls", "secretVolumes/0"),
    ("secretVolumes[0].mountPath=etc", "secretVolumes/0"),
])
def test_bad_values_are_refused(setting, says):
    with pytest.raises(RuntimeError) as refused:
        render("base", settings=[setting])
    assert "values don't meet the specifications" in str(refused.value), refused.value
    assert says in str(refused.value), refused.value


def test_a_chart_without_a_model_is_refused():
    with pytest.raises(RuntimeError, match="model"):
        render()


def test_gpus_of_a_replica_share_the_model(rendered):
    one, two = (pod_of(workload) for workload in (
        rendered["gpu"]["Deployment", "swaa"], rendered["everything"]["StatefulSet", "swaa"]))
    server = two["containers"][0]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert "--tensor-parallel-size=2" in server["args"]
    mounted = next(mount["name"] for mount in server["volumeMounts"]
                   if mount["mountPath"] == "/dev/shm")
    volume = next(volume for volume in two["volumes"] if volume["name"] == mounted)
    assert volume["emptyDir"]["medium"] == "Memory"
    alone = one["containers"][0]
    assert alone["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert not [text for text in alone["args"] if "tensor" in text]
    assert "/dev/shm" not in [mount["mountPath"] for mount in alone["volumeMounts"]]


def test_helm_lints():
    ran = subprocess.run([KUBERNETES / "helm", "lint", "--strict", CHART, "--values",
                          make_manifests.VALUES / "base.yaml"], capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_names_of_ports_and_pods_agree(rendered):
    """What selects or names something elsewhere finds it."""
    for variant, objects in rendered.items():
        pods = {found["metadata"]["name"]: found["spec"]["template"]
                for (kind, _), found in objects.items() if kind in make_manifests.WORKLOADS}
        for (kind, name), found in objects.items():
            spec = found.get("spec", {})
            selector = {"Service": spec.get("selector"),
                        "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels")}.get(
                            kind, spec.get("selector", {}).get("matchLabels")
                            if isinstance(spec.get("selector"), dict) else None)
            if selector is None:
                continue
            chosen = [pod for pod in pods.values()
                      if selector.items() <= pod["metadata"]["labels"].items()]
            assert len(chosen) == 1, (variant, kind, name)
            ports = {port["name"] for container in chosen[0]["spec"]["containers"]
                     for port in container["ports"]}
            asked = {port["targetPort"] for port in spec.get("ports", [])} | {
                port["port"] for rule in spec.get("ingress", []) for port in rule["ports"]} | {
                end["port"] for end in spec.get("podMetricsEndpoints", [])}
            assert asked <= ports, (variant, kind, name)
        for (kind, name), found in objects.items():
            if "scaleTargetRef" in found.get("spec", {}):
                target = found["spec"]["scaleTargetRef"]
                assert "replicas" not in objects[target["kind"], target["name"]]["spec"]


@pytest.mark.parametrize("grace,sleep", [(0, 1), (120, 5), (3600, 30)])
def test_the_grace_period_covers_sleep_and_drain(grace, sleep):
    found = render("base", "gateway", settings=[f"drain.graceSeconds={grace}",
                                               f"drain.preStopSeconds={sleep}"])
    for name in ("swaa", "swaa-gateway"):
        pod = pod_of(found["Deployment", name])
        assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == sleep
        assert pod["terminationGracePeriodSeconds"] >= grace + sleep + 10
    args = pod_of(found["Deployment", "swaa"])["containers"][0]["args"]
    assert f"--drain-grace-seconds={grace}" in args


def test_pods_are_replaced_for_what_does_not_reload_alone():
    def restart(*settings):
        found = render("base", settings=settings)["Deployment", "swaa"]
        return found["spec"]["template"]["metadata"]["annotations"]["swaa/restart"]

    before = restart("config.scheduling.max_running_requests=8")
    assert before == restart("config.scheduling.max_running_requests=8",
                             "config.default_recipe=mine", "config.recipes[0].name=mine",
                             "config.shadow.share=0.1", "config.experiments[0].id=a")
    assert before != restart("config.scheduling.max_running_requests=9")


def check_rules(groups, path):
    names = [group["name"] for group in groups]
    assert len(names) == len(set(names)), "the API takes a group's name once"
    path.write_text(yaml.safe_dump({"groups": groups}))
    ran = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True,
                         check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_the_rules(tmp_path, rendered):
    for kind in ("recording", "alert"):
        groups = rendered["monitoring"]["PrometheusRule", f"swaa-{kind}"]["spec"]["groups"]
        file = ROOT / "deploy" / "prometheus" / f"{kind}_rules.yaml"
        assert groups == yaml.safe_load(file.read_text())["groups"]
        check_rules(groups, tmp_path / "rules.yaml")
    monitor = rendered["monitoring"]["PodMonitor", "swaa"]["spec"]
    assert monitor["selector"]["matchLabels"][monitor["jobLabel"]].startswith("swaa"), \
        "alerts look at jobs of this name"


def test_prometheus_takes_the_queries_of_autoscalers(tmp_path, rendered):
    adapter = yaml.safe_load((ROOT / "deploy/prometheus/adapter_values.yaml").read_text())
    queries = []
    for rule in adapter["rules"]["custom"]:
        query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].split("{")[0])
        queries.append(query.replace("<<.LabelMatchers>>", 'pod="a"').replace("<<.GroupBy>>", "pod"))
    scaled = rendered["everything"]["ScaledObject", "swaa"]["spec"]
    queries += [trigger["metadata"]["query"] for trigger in scaled["triggers"]]
    check_rules([{"name": "queries", "rules": [
        {"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]}],
        tmp_path / "rules.yaml")
    series = {re.search(r"swaa_\w+", query)[0] for query in queries}
    metrics = rendered["autoscaling"]["HorizontalPodAutoscaler", "swaa"]["spec"]["metrics"]
    assert {metric["pods"]["metric"]["name"] for metric in metrics} == series


class Files(http.server.BaseHTTPRequestHandler):
    content = b"a model " * 1000
    asked = 0

    def do_GET(self):
        Files.asked += 1
        self.send_response(200 if self.path == "/model" else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def files():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_the_init_container_fetches_and_verifies(tmp_path, files, rendered):
    import hashlib
    container = pod_of(rendered["fetch"]["Deployment", "swaa"])["initContainers"][0]
    right = hashlib.sha256(Files.content).hexdigest()
    path = tmp_path / "folder" / "model.gguf"

    def fetch(url, digest):
        named = {variable["name"] for variable in container["env"]}
        assert named == {"MODEL_URL", "MODEL_SHA256", "MODEL_PATH"}
        return subprocess.run(
            [*container["command"], *container["args"]], capture_output=True, text=True,
            check=False, env={"PATH": os.environ["PATH"], "MODEL_URL": url, "NO_PROXY": "127.0.0.1",
                              "MODEL_SHA256": digest, "MODEL_PATH": str(path)})

    wrong = fetch(f"{files}/model", "0" * 64)
    assert wrong.returncode == 1 and f"its sha256 is {right}, not {'0' * 64}" in wrong.stderr
    assert fetch(f"{files}/none", right).returncode != 0
    assert list(path.parent.iterdir()) == [], "nothing is left of what failed"
    done = fetch(f"{files}/model", right)
    assert done.returncode == 0 and path.read_bytes() == Files.content, done.stderr
    asked = Files.asked
    again = fetch(f"{files}/model", right)
    assert again.returncode == 0 and "is there" in again.stdout and Files.asked == asked
    path.write_bytes(b"damaged")
    assert fetch(f"{files}/model", right).returncode == 0 and path.read_bytes() == Files.content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_guides_examples_work(tmp_path):
    guide = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    values, kustomization = re.findall(r"^```yaml\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(values)
    found = render(tmp_path / "mine.yaml", "gpu", "gateway", "monitoring")
    assert "default_recipe: balanced" in found["ConfigMap", "swaa"]["data"]["swaa.yaml"]
    for part in ("kustomize", "grafana"):
        shutil.copytree(ROOT / "deploy" / part, tmp_path / "swaa" / "deploy" / part)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(kustomization)
    (mine / "swaa.yaml").write_text("default_recipe: fast\n")
    combined = kustomize(mine)
    assert combined["ConfigMap", "swaa"]["data"] == {"swaa.yaml": "default_recipe: fast\n"}
    pod = pod_of(combined["Deployment", "swaa"])
    assert pod["containers"][0]["image"] == "REGISTRY/swaa:0.1.0-cuda"
    assert "--device=cuda" in pod["containers"][0]["args"]
