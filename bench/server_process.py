"""A `swaa serve` of the benchmarks: a process of its own on free ports of this machine."""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "build/bin/swaa"
MODEL = pathlib.Path.home() / ".cache/swaa/smollm2-135m-instruct.gguf"


@contextlib.contextmanager
def serving(*flags, model=MODEL, binary=BINARY, metrics=True):
    """Gives the server's HOST:PORT once it answers, and stops it at the end."""
    for needed, command in ((binary, "cmake --build build --target swaa"), (model, "tools/setup")):
        if not needed.exists():
            sys.exit(f"{needed} is missing: {command}")
    with tempfile.TemporaryDirectory() as folder:
        port_file, log = pathlib.Path(folder) / "port", pathlib.Path(folder) / "log"
        with open(log, "w") as output:
            process = subprocess.Popen(
                [binary, "serve", "--model", model, "--listen-address", "127.0.0.1:0",
                 *(["--metrics-address", "127.0.0.1:0"] if metrics else []),
                 "--port-file", port_file, *map(str, flags)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not port_file.exists():
                if process.poll() is not None:
                    sys.exit(f"the server did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield f"127.0.0.1:{port_file.read_text().strip()}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
