"""The package as pip makes it, and its types."""

import pathlib
import shutil
import subprocess
import sys

import swaa

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
# As it is imported here: the sources and the modules of proto/.
IMPORTED = pathlib.Path(swaa.__file__).resolve().parent


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pip_makes_the_stubs(tmp_path):
    """From a copy of the tree, which a build changes, and without a network."""
    for folder in ("python", "proto"):
        shutil.copytree(PACKAGE.parent / folder, tmp_path / folder,
                        ignore=shutil.ignore_patterns("build", "*.egg-info"))
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps",
        "--no-index", "--disable-pip-version-check", "--root-user-action", "ignore",
        "--target", tmp_path / "installed", tmp_path / "python")
    installed = tmp_path / "installed/swaa"
    for name in ("py.typed", "v1/recipe_pb2.py", "v1/recipe_pb2.pyi", "v1/config_pb2.py",
                 "v1/inference_service_pb2_grpc.py"):
        assert (installed / name).exists(), name
    for source in (PACKAGE / "src/swaa").rglob("*.py"):
        assert (installed / source.relative_to(PACKAGE / "src/swaa")).exists(), source
    said = run(sys.executable, "-c", "import swaa; print(swaa.__file__, swaa.Recipe(8).to_proto())",
               env={"PYTHONPATH": str(tmp_path / "installed")}, cwd=tmp_path)
    assert said.split() == [str(installed / "__init__.py"), "sliding_window_tokens:", "8"]
    for command in ("swaa-eval", "swaa-tune"):
        assert (tmp_path / "installed/bin" / command).exists()


def test_types(tmp_path):
    run("/usr/bin/mypy", "--config-file", PACKAGE / "pyproject.toml", "--cache-dir", tmp_path,
        "--no-error-summary", IMPORTED)
