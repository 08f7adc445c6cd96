"""The image's root file system: what is in it, and a server in it as the manifests' pod.

Needs root, for the namespaces that containers are made of.
"""

import hashlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import grpc
import pytest
import yaml

import container
import harness
from container import ConfigMapVolume, Container
from make_manifests import ROOT, render
from manifests import pod_of

MAKE_ROOT = ROOT / "deploy" / "image" / "make_root.py"
BUILD = pathlib.Path(harness.BINARY).parent.parent
MINE = {"name": "mine", "recipe": {"sliding_window_tokens": 64, "sink_tokens": 4}}
CONFIG = {"device": {"kv_cache_bytes": "128MiB"}, "recipes": [MINE]}
VALUES = {"config": CONFIG, "model": {"file": harness.model_path().name},
          "drain": {"graceSeconds": 1800}}  # on however slow a machine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make containers")


def make_root(folder):
    subprocess.run([sys.executable, MAKE_ROOT, "--build", BUILD, "--output", folder / "root",
                    "--tar", folder / "root.tar"], check=True)
    return folder / "root"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("image"))


def files_of(root):
    return {path.relative_to(root) for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()}


def test_a_root_is_the_same_twice(root, tmp_path):
    make_root(tmp_path)
    first, second = ((folder / "root.tar").read_bytes() for folder in (root.parent, tmp_path))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


def test_nothing_is_in_it_but_the_server(root):
    programs = [path for path in files_of(root)
                if (root / path).stat().st_mode & 0o111 and ".so" not in path.name]
    assert [str(path) for path in programs] == ["usr/bin/swaa"]
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        assert stat.S_ISLNK(mode) or path == root / "tmp" or not mode & 0o022, path
        assert path.is_symlink() is False or path.exists(), f"{path} leads nowhere"


def test_the_bill_of_materials_names_every_file(root):
    bill = json.loads((root / "usr/share/doc/swaa/sbom.spdx.json").read_text(encoding="utf-8"))
    listed = {file["fileName"]: file["checksums"][0]["checksumValue"] for file in bill["files"]}
    code = {path for path in files_of(root) if path.parts[0] == "usr" and path.parts[1] != "share"}
    assert {f"./{path}" for path in code} == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
    packages = {package["name"]: package for package in bill["packages"]}
    assert {"swaa", "libc6", "libgrpc29", "libssl3", "libstdc++6"} <= set(packages)
    known = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert known == set(packages) - {"swaa"}
    for name in known:
        installed = subprocess.run(["dpkg-query", "-W", "-f", "${Version} ", name], check=True,
                                   capture_output=True, text=True).stdout.split()
        assert packages[name]["versionInfo"] in installed
        assert (root / "usr/share/doc" / name / "copyright").stat().st_size > 0
    ends = {entry["SPDXID"] for entry in bill["packages"] + bill["files"]} | {"SPDXRef-DOCUMENT"}
    for relation in bill["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= ends


@pytest.fixture(scope="module")
def network():
    """Where pods listen on any address. Once: gRPC's threads stay in the one that they begin in."""
    container.enter_a_network_of_our_own()


@pytest.fixture(scope="module")
def pod(root, network, tmp_path_factory):
    """The chart's pod with CONFIG, its model, and a volume of its configuration."""
    folder = tmp_path_factory.mktemp("pod")
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    objects = render("base", values)
    volume = ConfigMapVolume(folder / "config", objects["ConfigMap", "swaa"]["data"])
    started = Container(root, pod_of(objects["Deployment", "swaa"]),
                        {"config": volume.folder, "model": harness.model_path().parent})
    started.config = volume
    yield started
    started.stop()


def test_the_pod_serves_without_rights(pod):
    pod.await_probe("startupProbe")
    pod.await_probe("readinessProbe")
    pod.await_probe("livenessProbe")
    answer = harness.collect(pod.inference, harness.request("The sea", max_tokens=4, recipe="mine"))
    assert len(answer.ids) == 4 and answer.accepted.recipe_name == "mine"
    process = pathlib.Path(f"/proc/{pod.main_process}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert status["NSpid"].split()[-1] == "1" and status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["65532"] * 4 and status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    points = {fields[4]: fields[5].split(",") for fields in mounts}
    for point in ("/", "/etc/swaa", "/models"):
        assert "ro" in points[point], point
    page = pod.metrics()
    assert "swaa_requests_waiting 0" in page and "swaa_kv_cache_usage_ratio 0" in page


def begin(pod, max_tokens, **fields):
    """A stream that has begun, and what it has said."""
    message = harness.request("Once upon a time", max_tokens=max_tokens, **fields)
    message.stopping_options.ignore_eos = True
    running = pod.inference.Generate(message)
    answer = harness.Answer()
    answer.take(next(running))
    return running, answer


def test_a_changed_configmap_changes_the_recipes(pod):
    running, answer = begin(pod, 200, recipe="mine")
    changed = CONFIG | {"recipes": [MINE | {"name": "other"}]}
    pod.config.write({"swaa.yaml": yaml.safe_dump(changed)})

    def names():
        listed = pod.control.ListRecipes(harness.control.ListRecipesRequest())
        return {named.name for named in listed.named_recipes}

    until = time.monotonic() + 300
    while "other" not in names() or "mine" in names():
        assert time.monotonic() < until, pod.log()
        time.sleep(0.05)
    for response in running:
        answer.take(response)
    assert len(answer.ids) == 200 and answer.accepted.recipe_name == "mine"
    assert pod.process.poll() is None


def test_the_pod_drains(pod):
    long, _ = begin(pod, 4000)  # keeps it draining until it is cancelled
    running, answer = begin(pod, 300)
    os.kill(pod.main_process, signal.SIGTERM)
    pod.await_probe("readinessProbe", passes=False)
    # Who drains is not to be killed.
    pod.await_probe("livenessProbe")
    assert pod.process.poll() is None
    for response in running:
        answer.take(response)
    assert len(answer.ids) == 300 and answer.finished is not None
    long.cancel()
    assert pod.await_exit(300) == 0, pod.log()
    for line in pod.log().splitlines():
        json.loads(line)


def test_a_pod_with_experiments_keeps_them(root, network, tmp_path):
    """On its own volume, which is all that it writes to."""
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    objects = render("base", "experiments", values)
    config = ConfigMapVolume(tmp_path / "config", objects["ConfigMap", "swaa"]["data"])
    volumes = {"config": config.folder, "model": harness.model_path().parent}
    for name in ("data", "tmp", "experiment-key"):
        volumes[name] = tmp_path / name
        volumes[name].mkdir()
    for name in ("data", "tmp"):  # what fsGroup does
        os.chown(volumes[name], 0, 65532)
        volumes[name].chmod(0o2775)
    key = volumes["experiment-key"] / "experiment.key"
    key.write_bytes(os.urandom(32))
    os.chown(key, 0, 65532)
    key.chmod(0o440)
    pod = Container(root, pod_of(objects["StatefulSet", "swaa"]), volumes)
    try:
        pod.await_probe("startupProbe")
        assert harness.collect(pod.inference, harness.request("The sea", max_tokens=2)).ids
    finally:
        code = pod.stop()
    assert code == 0, pod.log()
    assert (volumes["data"] / "experiments.db").stat().st_uid == 65532


def certificate(folder):
    """A Secret's data: a certificate for 127.0.0.1 that signs itself, its key, and as the authority
    of clients itself again."""
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=swaa", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True,
        capture_output=True)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    return {name: (folder / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")}


class Caller:
    """Somebody with a certificate to trust and a token of its own, on a connection of its own."""

    def __init__(self, pod, secret, token):
        credentials = grpc.ssl_channel_credentials(
            *(secret[name].encode() for name in ("ca.crt", "tls.key", "tls.crt")))
        self.channel = grpc.secure_channel(f"127.0.0.1:{pod.port}", credentials,
                                           [("grpc.use_local_subchannel_pool", 1)])
        self.metadata = [("authorization", f"Bearer {token}")]

    def generate(self, max_tokens):
        stub = harness.inference_grpc.InferenceServiceStub(self.channel)
        message = harness.request("Once upon a time", max_tokens=max_tokens)
        message.stopping_options.ignore_eos = True
        return stub.Generate(message, timeout=300, metadata=self.metadata)

    def is_answered(self):
        """False: it is not let in."""
        try:
            return len(list(self.generate(1))) > 0
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE,
                                    grpc.StatusCode.UNAUTHENTICATED), error
            return False


def test_a_pod_takes_new_certificates_and_tokens(root, network, tmp_path):
    """Secrets are swapped under a running stream, which loses nothing."""
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES | {"tls": {"clientAuthority": True}}))
    objects = render("base", "tls", values)
    config = ConfigMapVolume(tmp_path / "config", objects["ConfigMap", "swaa"]["data"])
    certificates = [certificate(tmp_path / name) for name in ("first", "second")]
    tokens = [os.urandom(32).hex() for _ in certificates]
    tables = [{"tokens.yaml": yaml.safe_dump({"callers": [
        {"name": "tester", "tokens": [token], "roles": ["generate"]}]})} for token in tokens]
    secrets = {name: ConfigMapVolume(tmp_path / name, data[0], 0o440, 65532)
               for name, data in (("tls", certificates), ("tokens", tables))}
    pod = Container(root, pod_of(objects["Deployment", "swaa"]), {
        "config": config.folder, "model": harness.model_path().parent,
        **{name: volume.folder for name, volume in secrets.items()}})
    try:
        pod.await_probe("startupProbe")
        pod.await_probe("readinessProbe")
        old = Caller(pod, certificates[0], tokens[0])
        assert old.is_answered()
        assert not Caller(pod, certificates[0], tokens[1]).is_answered()
        assert not Caller(pod, certificates[1], tokens[0]).is_answered()
        running, answer = old.generate(400), harness.Answer()
        answer.take(next(running))
        secrets["tls"].write(certificates[1])
        secrets["tokens"].write(tables[1])
        until = time.monotonic() + 300
        while not Caller(pod, certificates[1], tokens[1]).is_answered():
            assert time.monotonic() < until, pod.log()
            time.sleep(0.1)
        assert not Caller(pod, certificates[0], tokens[1]).is_answered()
        assert not Caller(pod, certificates[1], tokens[0]).is_answered()
        for response in running:
            answer.take(response)
        assert len(answer.ids) == 400 and answer.finished is not None
        pod.await_probe("readinessProbe")
        pod.await_probe("livenessProbe")
    finally:
        code = pod.stop()
    assert code == 0, pod.log()
