"""The browser of the tests: find a Chromium, or install Debian's.

Run it to install one: ``python assets/setup/chromium.py``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
"""What a browser without a screen, and without asking anyone for anything, is started with."""
_MISSING = """\
The browser tests need Chromium, and none was found.
  On Debian:  apt-get install chromium   (as root)
  Elsewhere:  install Chromium or Chrome, or name it: make test CHROMIUM=/path/to/chromium"""


def find_chromium() -> str | None:
    """Return the path of a Chromium: the one that CHROMIUM names, else the first on PATH; None if there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install_chromium() -> str:
    """Return the path of a Chromium, installing Debian's if there is none.

    Raises
    ------
    SystemExit
        If there is none and it cannot be installed; the message says what to do.
    """
    found = find_chromium()
    if found is None and shutil.which("apt-get"):
        install_packages("chromium", "fonts-dejavu-core")
        found = find_chromium()
    if found is None:
        raise SystemExit(_MISSING)
    return found


def install_packages(*names: str) -> bool:
    """Install Debian packages if this user may; return whether that worked."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and not shutil.which("sudo"):
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    get = [*root, "apt-get", "-q", "-o", "Acquire::Retries=3"]
    print("installing", *names, flush=True)
    subprocess.run([*get, "update"], env=environment, stdin=subprocess.DEVNULL, check=False)
    install = [*get, "install", "-y", "--no-install-recommends", *names]
    return subprocess.run(install, env=environment, stdin=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    print(install_chromium())
    sys.exit(0)
