"""Starts a container of a rendered pod as a kubelet would, without a container engine."""

import ctypes
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time

import harness
from make_manifests import ROOT

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

# Mounts are this process's alone; the root is read-only, and so are volumes unless they say "rw".
# Inside of a chroot "/" is no mount, and that which it lies on cannot be made private from there.
START = r"""
set -eu
root=$1 user=$2; shift 2
mount --make-rprivate / 2>/dev/null || :
mount --bind "$root" "$root"
mount --make-private "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
  shift 3
done
shift
exec env -i LANG=C.UTF-8 "$(command -v setpriv)" --no-new-privs "$(command -v chroot)" --userspec="$user" --groups= "$root" "$@"
"""


def enter_a_network_of_our_own():
    """From now on this thread and those that it starts see no interface but a loopback."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def of_dockerfile(instruction):
    """The last of these instructions in deploy/Dockerfile: a list, or its text."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(rf"^{instruction} (.+)$", text, re.MULTILINE)[-1]
    return json.loads(found) if found.startswith("[") else found


class ConfigMapVolume:
    """A ConfigMap's or a Secret's folder as kubelets keep it: files are links into ..data, itself a
    link."""

    def __init__(self, folder, data, mode=0o644, group=0):
        self.folder = pathlib.Path(folder)
        self.turn = 0
        self.mode, self.group = mode, group
        self.folder.mkdir()
        self.write(data)
        for name in data:
            (self.folder / name).symlink_to(f"..data/{name}")

    def write(self, data):
        """Everything at once: ..data is renamed to a new folder."""
        old = self.folder / f"..{self.turn}"
        self.turn += 1
        new = self.folder / f"..{self.turn}"
        new.mkdir()
        for name, text in data.items():
            (new / name).write_text(text, encoding="utf-8")
            os.chown(new / name, 0, self.group)
            (new / name).chmod(self.mode)
        link = self.folder / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(self.folder / "..data")
        if old.exists():
            for name in data:
                (old / name).unlink()
            old.rmdir()


class Container(harness.Server):
    """The container `swaa` of a pod's specification in the image's root file system, as process 1."""

    def __init__(self, root, pod, volumes):
        """`volumes`: folders that stand for the pod's volumes, by their names."""
        # Not the base's: it starts the program itself.
        specification = next(part for part in pod["containers"] if part["name"] == "swaa")
        self.specification = specification
        self.folder = tempfile.TemporaryDirectory(prefix="swaa-test-")
        self.log_file = pathlib.Path(self.folder.name) / "log"
        self.log_stream = open(self.log_file, "wb")
        self.port_file = pathlib.Path(self.folder.name) / "no port file"
        mounts = []
        for mount in specification["volumeMounts"]:
            (root / mount["mountPath"].lstrip("/")).mkdir(parents=True, exist_ok=True)
            mounts += [str(volumes[mount["name"]]), mount["mountPath"],
                       "ro" if mount.get("readOnly") else "rw"]
        self.user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
        assert self.user == of_dockerfile("USER"), "the image is another's"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child",
             "sh", "-c", START, "sh", str(root), self.user, *mounts, "--", *of_dockerfile("ENTRYPOINT"),
             *specification["args"]], stdout=self.log_stream, stderr=subprocess.STDOUT)
        ports = {port["name"]: port["containerPort"] for port in specification["ports"]}
        self.port, self.metrics_port = ports["grpc"], ports["metrics"]
        self.channel = self.new_channel()
        self.inference = harness.inference_grpc.InferenceServiceStub(self.channel)
        self.control = harness.control_grpc.ControlServiceStub(self.channel)

    def passes(self, probe):
        """Whether a probe of the specification succeeds now, over a connection of its own."""
        seconds = self.specification[probe]["timeoutSeconds"]
        if "exec" in self.specification[probe]:
            return self.runs(self.specification[probe]["exec"]["command"], seconds)
        asked = self.specification[probe]["grpc"]
        assert asked["port"] == self.port
        name = asked.get("service", "").encode()
        channel = self.new_channel()
        try:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(
                bytes([0x0a, len(name)]) + name if name else b"",
                timeout=seconds)
            return answer == b"\x08\x01"
        except harness.grpc.RpcError:
            return False
        finally:
            channel.close()

    def runs(self, command, seconds):
        """Whether a command succeeds in the container, as its user, in this time."""
        try:
            user, group = self.user.split(":")
            entered = ["nsenter", "--target", str(self.main_process), "--mount", "--pid", "--root",
                       "--wd", "--setuid", user, "--setgid", group, "--", *command]
            return subprocess.run(entered, timeout=seconds, capture_output=True,
                                  check=False, env={}).returncode == 0
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return False  # ValueError: there is no process yet

    def await_probe(self, probe, passes=True):
        until = time.monotonic() + 300
        while self.passes(probe) != passes:
            assert self.process.poll() is None, f"it ended:\n{self.log()}"
            assert time.monotonic() < until, f"{probe} is never {passes}:\n{self.log()}"
            time.sleep(0.05)

    @property
    def main_process(self):
        """Process 1 of the container, by its number here."""
        return int(pathlib.Path(
            f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def stop(self, with_signal=signal.SIGTERM):
        """As a kubelet ends it after preStop; the exit code."""
        if self.process.poll() is None:
            os.kill(self.main_process, with_signal)
        return self.await_exit(300)
