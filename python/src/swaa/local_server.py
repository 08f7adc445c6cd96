"""A server process on this machine, for tests, notebooks and measurements."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterable

_STOP_SECONDS = 60


class LocalServer:
    """`swaa serve` on free ports of the loopback interface, ready inside its `with` block.

    `binary` is the server's program, `model` a GGUF file or a folder as Hugging Face has them,
    `flags` what else `swaa serve --help` lists.
    """

    def __init__(self, binary: str | os.PathLike[str], model: str | os.PathLike[str],
                 flags: Iterable[str] = (), start_timeout_seconds: float = 300) -> None:
        self._command = [str(binary), "serve", "--model", str(model), *flags]
        self._start_timeout_seconds = start_timeout_seconds
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.metrics_address = ""

    def __enter__(self) -> LocalServer:
        self._folder = tempfile.TemporaryDirectory(prefix="swaa-server-")
        port_file = pathlib.Path(self._folder.name) / "port"
        log_file = pathlib.Path(self._folder.name) / "log"
        with open(log_file, "wb") as log:
            self._process = subprocess.Popen(
                [*self._command, "--listen-address", "127.0.0.1:0",
                 "--metrics-address", "127.0.0.1:0", "--port-file", str(port_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._await(port_file)
        except BaseException:
            self.__exit__()
            raise
        self.address = f"127.0.0.1:{port_file.read_text().strip()}"
        metrics_port = pathlib.Path(f"{port_file}.metrics").read_text().strip()
        self.metrics_address = f"127.0.0.1:{metrics_port}"
        return self

    def _await(self, port_file: pathlib.Path) -> None:
        # The server writes its port once a request would be answered.
        until = time.monotonic() + self._start_timeout_seconds
        while not port_file.exists():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the server did not start:\n{self.log()}")
            if time.monotonic() > until:
                raise RuntimeError(
                    f"the server is not ready after {self._start_timeout_seconds:g} s:\n"
                    + self.log())
            time.sleep(0.05)

    @property
    def process_id(self) -> int:
        """While the block lasts. Raises RuntimeError outside of it."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def log(self) -> str:
        """What the server has said, while the block lasts."""
        if self._folder is None:
            return ""
        return (pathlib.Path(self._folder.name) / "log").read_text(errors="replace")

    def drain(self) -> None:
        """Lets it end what it has begun and then itself; it takes nothing more."""
        if self._process is not None:
            self._process.terminate()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = self._process = None
