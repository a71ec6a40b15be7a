"""The memory of a process; and free memory used once, before anything is measured that grows.

A virtual machine gets its memory from the host at first use, which costs several times what the use itself does:
measured 3.1 s for each GB, later 0.5 s. A larger run would pay that for its page cache, a smaller one would not.
"""

from __future__ import annotations

import mmap
import subprocess
import sys

import psutil

PART = 0.9
"""Of what is available: the rest is for those who run meanwhile."""


def use_once() -> None:
    """Write to every page of the free memory in a process of its own, which then gives it back."""
    subprocess.run([sys.executable, "-m", "tests.bench.memory"], check=True)


def pss(pid: int) -> float:
    """Return the memory of a process in bytes, shared pages in parts (Linux: PSS; elsewhere: USS)."""
    info = psutil.Process(pid).memory_full_info()
    return float(getattr(info, "pss", info.uss))


def _write() -> None:
    size = int(psutil.virtual_memory().available * PART)
    with mmap.mmap(-1, size) as pages:
        for offset in range(0, size, mmap.PAGESIZE):
            pages[offset] = 1


if __name__ == "__main__":
    _write()
