"""Makes the modules of proto/ when the package is built: messages, their types, gRPC stubs."""

import pathlib
import shutil
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent


def proto_folder():
    """Beside this folder in the project's tree, inside it in a source distribution."""
    for folder in (HERE.parent / "proto", HERE / "proto"):
        if (folder / "swaa/v1").is_dir():
            return folder
    raise SystemExit(f"{HERE}: no proto/swaa/v1 here or beside it; build from the project's tree")


def compiler():
    """The protoc command: of grpcio-tools where it is installed, else Debian's."""
    try:
        import grpc_tools
        includes = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        return [sys.executable, "-m", "grpc_tools.protoc", f"-I{includes}"]
    except ImportError:
        protoc, plugin = shutil.which("protoc"), shutil.which("grpc_python_plugin")
    if not protoc or not plugin:
        raise SystemExit(
            "neither grpcio-tools nor protoc and grpc_python_plugin are installed: pip install "
            "grpcio-tools, or on Debian apt-get install protobuf-compiler protobuf-compiler-grpc")
    return [protoc, f"--plugin=protoc-gen-grpc_python={plugin}"]


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        protos = proto_folder()
        out = HERE / "src" if self.editable_mode else pathlib.Path(self.build_lib)
        out.mkdir(parents=True, exist_ok=True)
        names = sorted(str(path.relative_to(protos)) for path in protos.glob("swaa/v1/*.proto"))
        subprocess.run(
            [*compiler(), f"-I{protos}", f"--python_out={out}", f"--pyi_out={out}",
             f"--grpc_python_out={out}", *names], check=True)


class SdistWithProtos(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        shutil.copytree(proto_folder(), pathlib.Path(base_dir) / "proto", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithStubs, "sdist": SdistWithProtos})
