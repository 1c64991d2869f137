"""The servers that are compared: the dashboard's, and one of a notebook that does nothing, under the same Voila."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from explorer.cli.serve import HOST, free_port, voila_command, write_template

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Server", "dashboard", "empty_notebook", "plain_voila"]

ROOT = Path(__file__).parents[2]
_FIRST_PORT = 9100
_STARTED_WITHIN = 60
_QUIET_SECONDS = 0.8
_QUIET_WITHIN = 60


class Server:
    """A server of our own, and the kernels below it."""

    def __init__(self, command: list[str], port: int, *, path: Path | None = None) -> None:
        """Start it; `path` is where Voila shall look for templates."""
        self.url = f"http://{HOST}:{port}/"
        paths = [str(path)] if path else []
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def wait_started(self) -> None:
        """Wait until it answers; asks for a file that is not there, so that no kernel starts."""
        until = time.monotonic() + _STARTED_WITHIN
        while time.monotonic() < until:
            assert self._process.poll() is None, f"the server of {self.url} ended with {self._process.poll()}"
            try:
                urllib.request.urlopen(f"{self.url}voila/static/none", timeout=5)  # noqa: S310 - our own address
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"no server answers at {self.url}")

    def wait_quiet(self) -> None:
        """Wait until neither the server nor a kernel of it works: the pool is filled."""
        until = time.monotonic() + _QUIET_WITHIN
        before = self._worked()
        since = time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            assert time.monotonic() < until, f"the server of {self.url} does not come to rest"
            time.sleep(0.1)
            now = self._worked()
            # A pinging page costs a hundredth of a second now and then; a starting kernel costs all of it.
            if now - before > 0.3 * (time.monotonic() - since):
                before, since = now, time.monotonic()

    def stop(self) -> None:
        """End the server as Ctrl-C would, then what is left of its kernels."""
        tree = self._tree()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        _, alive = psutil.wait_procs(tree, timeout=10)
        for process in alive:
            process.kill()

    def kernel(self, kernel_id: str) -> int:
        """Return the process of a kernel, by the name Jupyter gave it."""
        name = f"kernel-{kernel_id}.json"
        return next(p.pid for p in self._tree() if any(name in word for word in p.cmdline()))

    def _tree(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _worked(self) -> float:
        """Return the seconds of processor time the server and its kernels have had."""
        seconds = 0.0
        for process in self._tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += times.user + times.system
        return seconds


@contextmanager
def dashboard(*, preheat: int) -> Iterator[Server]:
    """Serve the dashboard with the project's own command."""
    port = free_port(_FIRST_PORT)
    command = [sys.executable, "-m", "explorer", "serve", "--no-browser", f"--port={port}", f"--preheat={preheat}"]
    with _served(Server(command, port)) as server:
        yield server


@contextmanager
def empty_notebook(*, preheat: int) -> Iterator[Server]:
    """Serve a notebook of one cell with the same command line and template."""
    with tempfile.TemporaryDirectory(prefix="memslot-bench-") as folder:
        write_template(Path(folder))
        port = free_port(_FIRST_PORT)
        command = voila_command(_write_notebook(Path(folder)), port, preheat=preheat)
        with _served(Server(command, port, path=Path(folder))) as server:
            yield server


@contextmanager
def plain_voila(*, preheat: int) -> Iterator[Server]:
    """Serve that notebook as Voila comes, with its own template and every extension."""
    with tempfile.TemporaryDirectory(prefix="memslot-bench-") as folder:
        port = free_port(_FIRST_PORT)
        command = [sys.executable, "-m", "voila", str(_write_notebook(Path(folder))), "--no-browser", f"--port={port}"]
        command += [f"--Voila.ip={HOST}", f"--preheat_kernel={preheat > 0}", f"--pool_size={max(preheat, 1)}"]
        with _served(Server(command, port)) as server:
            yield server


@contextmanager
def _served(server: Server) -> Iterator[Server]:
    try:
        server.wait_started()
        server.wait_quiet()
        yield server
    finally:
        server.stop()


def _write_notebook(folder: Path) -> Path:
    cell = {
        "cell_type": "code",
        "id": "empty",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": 'print("ready")',
    }
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path = folder / "empty.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
