"""``explorer serve``: the dashboard on this machine, with everything it needs beside it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from importlib import resources
from pathlib import Path
from threading import Thread

from explorer.engine.types import ExplorerError

__all__ = ["FILL_SECONDS", "ServeError", "add_parser", "free_port", "run", "voila_command", "write_template"]

HOST = "127.0.0.1"
PORT = 8866
_PORTS_TRIED = 50
_LONGEST_FOLDER = 55
"""Bytes of the path of Jupyter's folder for sockets."""
_IDLE_SECONDS = 1800
_LONGEST_IDLE = 1e6
"""Minutes."""
_PATIENCE_SECONDS = 30
FILL_SECONDS = 2
"""After how long a kernel is started in the place of one that a visitor got."""
_KERNELS = "explorer.cli.idle.VisitorKernelManager"
_CONNECTION = "explorer.cli.prompt.PromptConnection"
_EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8", "anywidget")


class ServeError(ExplorerError):
    """The dashboard cannot be served here."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "serve",
        help="serve the dashboard on this machine",
        description="Serve the Voila dashboard on 127.0.0.1. A busy port is named and the next free one taken.",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"first port to try (default {PORT})")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--preheat", type=int, default=1, metavar="N", help="kernels kept ready (default 1)")
    parser.add_argument(
        "--idle",
        type=_minutes,
        metavar="MINUTES",
        help=f"end a session that nobody has used for so long, even if its tab is open;"
        f" without it, only sessions without a tab end, after {_IDLE_SECONDS // 60} minutes",
    )
    parser.set_defaults(run=run)


def _minutes(text: str) -> float:
    """Read a number of minutes above 0."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0
    if not 0 < minutes < _LONGEST_IDLE:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes; write one such as 30")
    return minutes


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; return the server's exit status."""
    if importlib.util.find_spec("voila") is None:
        raise ServeError("voila is not installed; run `make run`, or pip install memslot-explorer")
    port = free_port(args.port)
    if port != args.port:
        print(f"port {args.port} is taken by another program; using {port}")
    with tempfile.TemporaryDirectory(prefix="memslot-explorer-") as folder:
        write_template(Path(folder))
        address = f"http://{HOST}:{port}/"
        command = voila_command(notebook(), port, preheat=args.preheat, idle_minutes=args.idle)
        path = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        print(f"Memslot Explorer: {address}  (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the server, too
        server = subprocess.Popen(command, env={**os.environ, "JUPYTER_PATH": path})  # noqa: S603 - our own command
        if not args.no_browser and _has_browser():
            Thread(target=_open_when_up, args=(address, port), daemon=True).start()
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            server.wait(_PATIENCE_SECONDS)
            return 0


def notebook() -> Path:
    """Return the dashboard's notebook: the checkout's, or the one the package carries.

    Raises
    ------
    ServeError
        If there is neither.
    """
    here = Path(str(resources.files("explorer")))
    name = Path("notebooks") / "90_dashboard.ipynb"
    for path in (here.parent / name, here / "_assets" / name):
        if path.is_file():
            return path
    raise ServeError("90_dashboard.ipynb is missing; was the package installed whole?")


def write_template(folder: Path) -> None:
    """Write the page's template where Voila looks: our files, and plotly's script from its own package."""
    target = folder / "voila" / "templates" / "explorer"
    source = Path(str(resources.files("explorer.app"))) / "template" / "explorer"
    shutil.copytree(source, target)
    static = target / "static"
    static.mkdir()
    plotly = Path(str(resources.files("plotly"))) / "package_data" / "plotly.min.js"
    # A copy: the server refuses to follow a link out of the template.
    shutil.copyfile(plotly, static / "plotly.min.js")


def voila_command(path: Path, port: int, *, preheat: int, idle_minutes: float | None = None) -> list[str]:
    """Return the command that serves a notebook: one page, kernels ready, dead sessions removed.

    Parameters
    ----------
    path
        The notebook.
    port
        Where it is served on this machine.
    preheat
        Kernels kept ready.
    idle_minutes
        After how long without use a session ends although its tab is open; None for never.
    """
    idle_seconds = _IDLE_SECONDS if idle_minutes is None else max(round(idle_minutes * 60), 1)
    return [
        sys.executable,
        "-m",
        "voila",
        str(path),
        "--no-browser",
        f"--port={port}",
        f"--Voila.ip={HOST}",
        "--template=explorer",
        "--theme=light",
        f"--preheat_kernel={preheat > 0}",
        f"--pool_size={max(preheat, 1)}",
        # The next kernel starts when the page of this visitor is drawn; before, it would take a processor from it.
        f"--VoilaKernelManager.fill_delay={FILL_SECONDS}",
        # Only what draws widgets: every other extension is loaded by each visitor for nothing.
        *(f"--VoilaConfiguration.extension_allowlist={name}" for name in _EXTENSIONS),
        "--VoilaConfiguration.allow_template_override=NO",
        "--VoilaConfiguration.allow_theme_override=NO",
        f"--VoilaConfiguration.multi_kernel_manager_class={_KERNELS}",
        f"--Voila.kernel_websocket_connection_class={_CONNECTION}",
        f"--MappingKernelManager.cull_interval={max(idle_seconds // 30, 1)}",
        f"--MappingKernelManager.cull_idle_timeout={idle_seconds}",
        f"--MappingKernelManager.cull_connected={idle_minutes is not None}",
        "--Voila.log_level=ERROR",
        *(["--KernelManager.transport=ipc"] if _has_private_sockets() else []),
    ]


def _has_private_sockets() -> bool:
    """Return whether kernels can be reached through sockets that belong to this user alone, instead of TCP."""
    # The address of such a socket holds 107 bytes, and its name in Jupyter's folder takes 51 of them.
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415 - other commands need no Jupyter

    return os.name == "posix" and len(os.fsencode(jupyter_runtime_dir())) <= _LONGEST_FOLDER


def free_port(first: int) -> int:
    """Return the first port from `first` on that nobody listens on.

    Raises
    ------
    ServeError
        If none of the next ports is free.
    """
    for port in range(first, first + _PORTS_TRIED):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServeError(f"no free port from {first} to {first + _PORTS_TRIED - 1}; name another with --port")


def _open_when_up(address: str, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            webbrowser.open(address)
            return


def _has_browser() -> bool:
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "darwin" or os.name == "nt" or bool(screen)
