"""A browser for the tests of the frontend: `python -m tests.rig.browser` installs Debian's Chromium where it may.

Root on a Debian system without one: apt-get. Anywhere else nothing is done, and the tests say why they are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PACKAGE = "chromium"
LIMIT = 900.0
"""Seconds for the installation."""


def find() -> str:
    """Path of a Chromium; '' when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), "")


def installable() -> bool:
    """Whether this user may install one here."""
    geteuid = getattr(os, "geteuid", None)
    return geteuid is not None and geteuid() == 0 and shutil.which("apt-get") is not None


def install() -> int:
    """Install the package; the exit code of apt-get."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", PACKAGE)):
        argv = ["apt-get", *words]
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False, timeout=LIMIT)
        if done.returncode:
            return done.returncode
    return 0


def main() -> int:
    """See that a browser is there where that can be done; 0 also where it cannot."""
    if find():
        print(find())
        return 0
    if not installable():
        print("no Chromium, and none can be installed by this user", file=sys.stderr)
        return 0
    return install()


if __name__ == "__main__":
    sys.exit(main())
