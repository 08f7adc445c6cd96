#!/usr/bin/env python3
"""Makes the server's root file system out of a finished build, on the Debian that built it.

    deploy/image/make_root.py --build BUILD --output FOLDER [--cuda FOLDER] [--tar FILE]

The root holds the server with its libraries (the CMake component `server`), the files of glibc, a
user, and nothing else: no shell, no package manager. `--cuda` adds cuBLASLt and NCCL from such a
folder as CUDA's installer makes it. Each file's Debian package is recorded twice, where scanners look
for it: in /var/lib/dpkg/status.d, and as SPDX 2.3 in /usr/share/doc/swaa/sbom.spdx.json.

The same build and the same package versions give the same bytes: names are sorted, owners are 0, and
every time is $SOURCE_DATE_EPOCH (else 0). Needs neither root nor a container engine.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time

GLIBC = ["ld-linux-x86-64.so.2"] + [f"lib{name}.so.{version}" for name, version in (
    ("c", 6), ("m", 6), ("dl", 2), ("rt", 1), ("pthread", 0), ("resolv", 2))]
LIBRARIES = "usr/lib/x86_64-linux-gnu"
USER = 65532
FOLDERS = ["dev", "proc", "sys", "etc/swaa", "models", "tmp", "var/lib/swaa"]
TEXTS = {
    "etc/passwd": f"root:x:0:0:root:/root:/\nswaa:x:{USER}:{USER}:SWAA server:/var/lib/swaa:/\n",
    "etc/group": f"root:x:0:\nswaa:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
LINKS = {"lib": "usr/lib", "lib64": "usr/lib64", "bin": "usr/bin", "sbin": "usr/sbin",
         "usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"}


def fail(message):
    sys.exit(f"make_root: {message}")


def output_of(*command):
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        fail(f"{' '.join(map(str, command))}: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def owners(paths):
    """The Debian package that each of `paths`, libraries of the root, comes from, by path."""
    by_name = {path.name: path for path in paths}
    # Packages may know a file by either name of its folder; for the wrong one dpkg complains.
    asked = [f"{folder}/{name}" for folder in (f"/{LIBRARIES}", f"/{LIBRARIES[4:]}")
             for name in by_name]
    listed = subprocess.run(["dpkg-query", "-S", *asked], capture_output=True, text=True,
                            check=False).stdout
    found = {}
    for line in listed.splitlines():
        package, _, file = line.partition(": ")
        path = by_name[pathlib.Path(file).name]
        if sha256(pathlib.Path(file)) == sha256(path):
            found[path] = package
    for path in paths:
        if path not in found:
            fail(f"{path.name}: no Debian package has this file; build against Debian's libraries")
    return found


def package_facts(package):
    form = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}"
    keys = ("name", "version", "architecture", "source", "source_version")
    return dict(zip(keys, output_of("dpkg-query", "-W", "-f", form, package).split("\t")))


def install_server(build, root):
    output_of("cmake", "--install", build, "--component", "server", "--strip", "--prefix",
              root / "usr")


def install_glibc(root):
    folder = root / LIBRARIES
    folder.mkdir()
    for name in GLIBC:
        shutil.copy(f"/{LIBRARIES}/{name}", folder / name)


def install_cuda(cuda, root):
    """The facts of cuBLASLt, and of NCCL where the folder has it."""
    header = (cuda / "include/cublas_api.h").read_text(encoding="utf-8")
    numbers = [re.search(rf"#define CUBLAS_VER_{part} (\d+)", header)[1]
               for part in ("MAJOR", "MINOR", "PATCH", "BUILD")]
    name = f"libcublasLt.so.{numbers[0]}"
    target = root / "usr/local/cuda/lib64" / name
    target.parent.mkdir(parents=True)
    shutil.copy(cuda / "lib64" / name, target)
    packages = [{"name": "nvidia-cublas", "version": ".".join(numbers), "files": [target]}]
    nccl = cuda / "lib64/libnccl.so.2"
    if nccl.exists():
        header = (cuda / "include/nccl.h").read_text(encoding="utf-8")
        numbers = [re.search(rf"#define NCCL_{part} (\d+)", header)[1]
                   for part in ("MAJOR", "MINOR", "PATCH")]
        shutil.copy(nccl, target.parent / nccl.name)
        packages.append({"name": "nvidia-nccl", "version": ".".join(numbers),
                         "files": [target.parent / nccl.name]})
    return packages


def install_skeleton(root):
    for folder in FOLDERS + ["usr/sbin", "usr/lib64"]:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name, text in TEXTS.items():
        (root / name).write_text(text, encoding="ascii")
    for link, target in LINKS.items():
        (root / link).symlink_to(target)
    # What scanners tell the distribution by.
    shutil.copy("/usr/lib/os-release", root / "usr/lib/os-release")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")


def debian_packages(root):
    """The packages whose files the root has: their facts, with `files`; writes what is kept of them."""
    packages = {}
    files = [path for folder in (root / "usr/lib", root / LIBRARIES)
             for path in sorted(folder.glob("*.so*")) if path.is_file() and not path.is_symlink()]
    for path, package in owners(files).items():
        packages.setdefault(package, []).append(path)
    packages.setdefault("base-files", []).append(root / "usr/lib/os-release")
    found = []
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package, paths in sorted(packages.items()):
        facts = package_facts(package) | {"files": paths}
        found.append(facts)
        (status / facts["name"]).write_text(output_of("dpkg-query", "-s", package),
                                            encoding="utf-8")
        copyright_file = root / "usr/share/doc" / facts["name"] / "copyright"
        copyright_file.parent.mkdir(parents=True)
        shutil.copy(f"/usr/share/doc/{facts['name']}/copyright", copyright_file)
    return found


def spdx(root, version, packages, created):
    """An SPDX 2.3 document: the server contains packages, packages contain files."""
    def file_id(path):
        return "SPDXRef-File-" + re.sub(r"[^A-Za-z0-9.]", "-", str(path.relative_to(root)))

    documents, files, relations = [], [], []
    for facts in packages:
        identity = "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.]", "-", facts["name"])
        entry = {"SPDXID": identity, "name": facts["name"], "versionInfo": facts["version"],
                 "downloadLocation": "NOASSERTION", "licenseConcluded": "NOASSERTION",
                 "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
                 "filesAnalyzed": False}
        if "architecture" in facts:
            locator = (f"pkg:deb/debian/{facts['name']}@{facts['version'].replace('+', '%2B')}"
                       f"?arch={facts['architecture']}&distro=bookworm")
            entry["supplier"] = "Organization: Debian"
            entry["sourceInfo"] = f"built from {facts['source']} {facts['source_version']}"
            entry["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER",
                                      "referenceType": "purl", "referenceLocator": locator}]
        documents.append(entry)
        for path in facts["files"]:
            files.append({"SPDXID": file_id(path), "fileName": f"./{path.relative_to(root)}",
                          "checksums": [{"algorithm": "SHA256", "checksumValue": sha256(path)}],
                          "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION"})
            relations.append({"spdxElementId": identity, "relationshipType": "CONTAINS",
                              "relatedSpdxElement": file_id(path)})
    identity = hashlib.sha256(json.dumps([documents, files]).encode()).hexdigest()
    relations.append({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                      "relatedSpdxElement": "SPDXRef-Package-swaa"})
    return {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "dataLicense": "CC0-1.0",
            "name": f"swaa-{version}", "documentNamespace": f"urn:sha256:{identity}",
            "creationInfo": {"created": created, "creators": ["Tool: deploy/image/make_root.py"]},
            "packages": documents, "files": files, "relationships": relations}


def set_times(root, epoch):
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.utime(root, (epoch, epoch))


def write_tar(root, tar, epoch):
    def plain(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = epoch
        return entry

    with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, path.relative_to(root), recursive=False, filter=plain)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--cuda", type=pathlib.Path)
    parser.add_argument("--tar", type=pathlib.Path)
    options = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    root = options.output.resolve()
    if root.exists() and any(root.iterdir()):
        fail(f"--output {root} is not empty; name a new folder")
    os.umask(0o022)
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)

    install_server(options.build, root)
    install_glibc(root)
    binary = root / "usr/bin/swaa"
    packages = install_cuda(options.cuda, root) if options.cuda else []
    install_skeleton(root)
    packages += debian_packages(root)
    version = re.search(r"^CMAKE_PROJECT_VERSION:STATIC=(.+)$",
                        (options.build / "CMakeCache.txt").read_text(encoding="utf-8"), re.M)[1]
    packages.insert(0, {"name": "swaa", "version": version, "files": [binary]})
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    sbom = root / "usr/share/doc/swaa/sbom.spdx.json"
    sbom.parent.mkdir(parents=True)
    sbom.write_text(json.dumps(spdx(root, version, packages, created), indent=1) + "\n",
                    encoding="utf-8")
    set_times(root, epoch)
    if options.tar:
        write_tar(root, options.tar, epoch)
    size = sum(path.stat().st_size for path in root.rglob("*")
               if path.is_file() and not path.is_symlink())
    print(f"{root}: {size / 1e6:.0f} MB, {len(packages)} packages")


if __name__ == "__main__":
    main()
