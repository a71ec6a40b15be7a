"""The 30 faults that data has to survive, and the table of what was seen: made from the tests that carry `fault(N)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

EXPECTED: dict[int, tuple[str, str]] = {
    1: ("kill -9 of a backup, in each phase", "no new backup; its parts swept by the next run; earlier ones verify"),
    2: ("kill -9 of pg_dump, or the end of the server, during a dump", "exit 10 or 5 with its words; none published"),
    3: ("disk full", "exit 10, says so with what is needed; part removed; retention did not run"),
    4: ("one flipped bit, at 200 places in each kind of file", "exit 10 names the file, before anything is touched"),
    5: ("manifest truncated, empty, {}, of a newer format", "exit 10 says so; listed as broken, never as latest"),
    6: ("wrong password, wrong S3 secret, expired key", "exit 5 within 5 s names user@host; the secret is nowhere"),
    7: ("server down; port open but silent", "exit 5 within 15 s; no storm of tries"),
    8: ("restore with 20 clients that reconnect", "old or new contents, never without database for 1 s; old one kept"),
    9: ("kill -9 at each step of a restore", "live database unchanged or fully new; a rerun cleans"),
    10: ("roles missing, or there with another password", "made first, or exit 11 naming them"),
    11: ("client older than server; dump newer than target", "refused first, with both versions"),
    12: ("a port is taken", "exit 4 says by whom and which setting moves it; nothing started"),
    13: ("two runs at once", "the second ends with 12, names the holder; a killed holder holds nothing"),
    14: ("clock 2 h off, DST, two backups in a second", "order by sequence; the newest stays; S3 skew said as clock"),
    15: ("keys ../x /abs a/../b . .. a//b ./x", "nothing outside the target; backups hold all; trees: exit 11"),
    16: ("keys with blanks, quotes, newline, emoji, NFC and NFD, 1,024 bytes", "byte-exact; logs escape what controls"),
    17: ("keys that differ by case, on a disk that does not", "backups hold both; a tree: exit 11 names the pair"),
    18: ("key ending in /, key that is file and prefix", "both come back; a tree: the others go on, exit 11"),
    19: ("object of more than 5 GiB, upload killed", "in parts; taken up or begun again; no upload left open"),
    20: ("bucket empty or missing; listing fails on page 3", "made again; exit 11; nothing deleted, exit 5"),
    21: ("versions and delete markers", "current ones by default, all with --versions"),
    22: ("object replaced or deleted during the run", "listed again, or noted; never a mixture"),
    23: ("Ctrl-C and SIGTERM at random times", "130 or 143 within 2 s; no child, no part, lock free"),
    24: ("server or client killed, or without memory", "no success; not published; the next up heals"),
    25: ("links in a backup's directory", "refused with the path; retention follows none"),
    26: ("umask 000 and 022; loose files", "0600 in 0700; doctor names loose ones; no password in ps, logs"),
    27: ("target read-only, on another disk, EIO on fsync", "a failed backup; what is written lies beside its target"),
    28: ("retention with the newest three broken", "the last verified one stays, and why is said"),
    29: ("a table held exclusively during the fence", "2 s, three tries, then without fence; said, exit 11"),
    30: ("a dump with foreign statements", "its hash refuses it; psql is never started"),
}
"""Row -> what is done, what is expected."""

_LABEL = "fault"


@dataclass
class Seen:
    """How the tests of one row went."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def words(self) -> str:
        """For the table."""
        if not self.outcomes:
            return "no test of this run"
        counted = [f"{self.outcomes[k]} {k}" for k in ("passed", "failed", "skipped") if self.outcomes[k]]
        reasons = "; ".join(dict.fromkeys([*self.failed, *self.reasons]))
        state = "as expected" if self.outcomes["passed"] and not self.failed else "NOT AS EXPECTED"
        state = "not run" if set(self.outcomes) == {"skipped"} else state
        return f"{state} ({', '.join(counted)})" + (f": {reasons}" if reasons else "")


class Matrix:
    """A pytest plugin: notes the outcome of every test with a row, and prints the table at the end."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.rows: dict[int, Seen] = {number: Seen() for number in EXPECTED}
        self.any = False

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Put the rows where reports carry them, also from another process."""
        for item in items:
            for mark in item.iter_markers(_LABEL):
                for number in mark.args:
                    assert number in EXPECTED, f"{item.nodeid}: there is no row {number}"
                    item.user_properties.append((_LABEL, str(number)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once, by its call, or by the phase that kept it from one."""
        if report.when != "call" and report.outcome == "passed":
            return
        for name, value in report.user_properties:
            if name == _LABEL:
                self._count(self.rows[int(str(value))], report)

    def _count(self, seen: Seen, report: pytest.TestReport) -> None:
        self.any = True
        seen.outcomes[report.outcome] += 1
        if report.outcome == "failed":
            seen.failed.append(report.nodeid.rsplit("::", 1)[-1])
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            seen.reasons.append(str(report.longrepr[2]).removeprefix("Skipped: "))

    def lines(self) -> list[str]:
        """The table."""
        cells = [(str(n), *EXPECTED[n], seen.words()) for n, seen in self.rows.items()]
        rows = [("", "fault", "expected", "seen"), *cells]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows]

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print it, and keep it as a file."""
        if not self.any or hasattr(config, "workerinput"):
            return
        terminalreporter.section("faults of data")
        for line in self.lines():
            terminalreporter.write_line(line)
        self.results.mkdir(exist_ok=True)
        (self.results / "faults.txt").write_text("\n".join(self.lines()) + "\n", encoding="utf-8")
