"""The output of a task: the answer on stdout, everything else on stderr and in the run's log.

A pipe that reads stdout gets the answer and nothing else; in JSON it is exactly one object, also on failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from infra import columns
from infra.errors import PlatformError
from infra.terminal import visible

SCHEMA_VERSION = 1
FORMATS = ("table", "json", "yaml", "env", "name")
MASK = "****"
DOCS = "docs/errors.md"
KEEP_LOGS = 20
PROGRAM = "platform"
"""The command that runs tasks from any directory (platform_launcher.py)."""
_INVOKE = re.compile(r"(?<![\w./\\-])invoke(?= [a-z-])")

_COLORS = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
_SYMBOLS = {"good": ("✓", "+"), "bad": ("✗", "x"), "warn": ("!", "!"), "dim": ("·", "-"), "bold": ("", "")}


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading.

    `keep` are columns that are cut last, e.g. with what people copy; `drop` those that are left out first where the
    room is too narrow, in this order; `wrap` is the column whose text goes on below itself instead of being cut;
    `styles` are the colours of cells with such a text.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keep: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    wrap: int | None = None
    styles: Mapping[str, str] = field(default_factory=dict)

    def lines(self, room: int = 0, mark: str = "…") -> list[str]:
        """Return the table as aligned text, without borders; in at most `room` cells, unless that is 0."""
        if not self.rows:
            return []
        widths = self._widths(room) if room else self.widest
        return [columns.row(cells, widths, mark) for row in self._everything for cells in self._below(row, widths)]

    @property
    def _everything(self) -> list[tuple[str, ...]]:
        return [self.heading, *self.rows] if any(self.heading) else list(self.rows)

    @property
    def widest(self) -> list[int]:
        """The cells that each column takes."""
        return [max(columns.width(row[i]) for row in self._everything) for i in range(len(self.heading))]

    def _widths(self, room: int) -> list[int]:
        """Return the cells of each column in so much room; one with `wrap` gives way first, to the half."""
        widest = self.widest
        if self.wrap is None:
            return columns.fitting(widest, room, self.keep)
        gaps = len(columns.GAP) * (len(widest) - 1)
        own = min(widest[self.wrap], max(room // 2, room - gaps - sum(widest) + widest[self.wrap]))
        others = [*widest[: self.wrap], *widest[self.wrap + 1 :]]
        fitted = columns.fitting(others, room - own - len(columns.GAP))
        return [*fitted[: self.wrap], own, *fitted[self.wrap :]]

    def _below(self, cells: tuple[str, ...], widths: Sequence[int]) -> list[tuple[str, ...]]:
        """Return a row, and what of its text goes on below."""
        if self.wrap is None:
            return [cells]
        first, *others = columns.wrapped(cells[self.wrap], widths[self.wrap])
        blank = [""] * len(cells)
        rows = [(*cells[: self.wrap], first, *cells[self.wrap + 1 :])]
        return rows + [(*blank[: self.wrap], text, *blank[self.wrap + 1 :]) for text in others]

    def whole(self, room: int) -> bool:
        """Return whether nothing is cut in so many cells."""
        if not self.rows:
            return True
        pairs = enumerate(zip(self._widths(room), self.widest, strict=True))
        return all(has >= wants or i == self.wrap for i, (has, wants) in pairs)

    def narrowed(self, room: int) -> Table:
        """Return the table without as many of the columns of `drop` as it takes to fit into `room` cells."""
        if not self.drop or self.whole(room):
            return self
        gone, *others = self.drop
        kept = [index for index in range(len(self.heading)) if index != gone]
        return replace(
            self,
            heading=tuple(self.heading[index] for index in kept),
            rows=tuple(tuple(row[index] for index in kept) for row in self.rows),
            keep=tuple(kept.index(index) for index in self.keep if index != gone),
            drop=tuple(kept.index(index) for index in others),
        ).narrowed(room)

    def mapped(self, change: Callable[[str], str]) -> Table:
        """Return the table with each cell changed."""
        return replace(self, rows=tuple(tuple(change(cell) for cell in row) for row in self.rows))


@dataclass(frozen=True)
class Answer:
    """The answer of a task: data for programs, a table and lines for people, variables for shells."""

    data: object
    table: Table | None = None
    lines: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    names: tuple[str, ...] = ()
    exit: int = 0
    comments: tuple[str, ...] = ()
    """Comments on the variables, for readers of the `.env` file."""


@dataclass
class Console:
    """The two streams of one run and the log beside them."""

    output: str = "table"
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    secrets: tuple[str, ...] = ()
    shell: str = ""
    no_color: bool = False
    command: str = ""
    tier: str = ""
    stack: str = ""
    warnings: list[str] = field(default_factory=list)
    log: TextIO | None = None

    @property
    def live(self) -> bool:
        """Return whether progress may be drawn and questions asked: both ends are terminals and this is no CI."""
        tty = self.stderr.isatty() and sys.stdin is not None and sys.stdin.isatty()
        return tty and not self.environ.get("CI") and self.environ.get("TERM") != "dumb"

    def color(self, stream: TextIO) -> bool:
        """Return whether colour codes may be written to that stream."""
        if self.no_color or self.environ.get("NO_COLOR"):
            return False
        if self.environ.get("FORCE_COLOR"):
            return True
        return stream.isatty() and self.environ.get("TERM") != "dumb"

    def paint(self, text: str, style: str, stream: TextIO | None = None) -> str:
        """Return the text in a style, or as it is where colours are off."""
        code = _COLORS[style]
        return f"\x1b[{code}m{text}\x1b[0m" if self.color(stream or self.stderr) else text

    def symbol(self, style: str, stream: TextIO | None = None) -> str:
        """Return a mark for a state; plain ASCII where the stream is not UTF-8."""
        return _SYMBOLS[style][0 if unicode_ok(stream or self.stderr) else 1]

    def mask(self, text: str) -> str:
        """Return the text without the secrets of the settings, as they are and as they stand in URLs."""
        if not self.secrets:
            return text
        from urllib.parse import quote

        known = sorted({form for s in self.secrets for form in (s, quote(s, safe=""))}, key=len, reverse=True)
        # Not inside a longer word: the password `other` must not garble `another`.
        return re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)", MASK, text)

    def _masked(self, value: Any) -> Any:
        """Return data without secrets; before it becomes JSON, where quotes and the like look different."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, dict):
            return {key: self._masked(part) for key, part in value.items()}
        return [self._masked(part) for part in value] if isinstance(value, list) else value

    def say(self, text: str = "", style: str = "") -> None:
        """Print one line of progress for people, on stderr."""
        text = self.mask(spoken(text))
        self._log(visible(text))
        write_line(self.stderr, self.paint(text, style) if style else text, styled=self.color(self.stderr))

    def warn(self, text: str) -> None:
        """Warn: on stderr at once, and in the JSON envelope."""
        self.warnings.append(self.mask(text))
        self.say(f"{self.symbol('warn')} {text}", "warn")

    def answer(self, answer: Answer) -> None:
        """Print the answer on stdout in the chosen format."""
        for line in self._rendered(answer):
            self.line(line)
        self.stdout.flush()

    def line(self, text: str) -> None:
        """Write one line on stdout; what a shell is to read (`env`) goes as it is."""
        write_line(self.stdout, text, styled=self.color(self.stdout), raw=self.output == "env")

    def _rendered(self, answer: Answer) -> Iterable[str]:
        if self.output in ("json", "yaml"):
            return [self._structured(self._envelope(answer.data, None))]
        if self.output == "env":
            return [*env_lines(answer.env or {}, self.shell), *(() if self.shell else answer.comments)]
        if self.output == "name":
            return answer.names
        return [*self._table(answer.table), *(self.mask(spoken(line)) for line in answer.lines)]

    def _table(self, table: Table | None) -> list[str]:
        """Return the lines of a table, on a terminal in its width; secrets are hidden before anything is cut off."""
        if table is None:
            return []
        masked, mark = table.mapped(lambda cell: printable(self.mask(cell))), "…" if unicode_ok(self.stdout) else "..."
        if not self.stdout.isatty():
            return self._coloured(masked.lines(), table)
        room = shutil.get_terminal_size().columns
        narrow = masked.narrowed(room)
        lines = self._coloured(narrow.lines(room, mark), table)
        return (
            lines
            if narrow == masked and masked.whole(room)
            else [*lines, "(cut to the width of this terminal; everything: -o json)"]
        )

    def _coloured(self, lines: list[str], table: Table) -> list[str]:
        """Return the lines with the first cell of `table.styles` of each in colour; a cell has blanks around it."""
        if not table.styles or not self.color(self.stdout):
            return lines
        cells = "|".join(re.escape(text) for text in sorted(table.styles, key=len, reverse=True))
        found = re.compile(rf"(?<!\S)({cells})(?!\S)")
        return [found.sub(lambda m: self.paint(m[1], table.styles[m[1]], self.stdout), line, count=1) for line in lines]

    def fail(self, error: PlatformError) -> None:
        """Print one error block on stderr, and the envelope on stdout where that is the format."""
        for line in block(error, self):
            self.say(line, "bad" if line.startswith(self.symbol("bad")) else "")
        if self.output in ("json", "yaml"):
            self.line(self._structured(self._envelope(None, error)))

    def _structured(self, envelope: Mapping[str, object]) -> str:
        unicode = unicode_ok(self.stdout)
        if self.output == "json":
            # For people by lines; for programs, cron mails and logs one line.
            return json.dumps(envelope, indent=2 if self.stdout.isatty() else None, ensure_ascii=not unicode)
        import yaml

        return str(yaml.safe_dump(envelope, sort_keys=False, allow_unicode=unicode)).rstrip()

    def _envelope(self, data: object, error: PlatformError | None) -> dict[str, object]:
        return {
            "schemaVersion": SCHEMA_VERSION,
            "command": self.command,
            "tier": self.tier,
            "stack": self.stack,
            "status": "error" if error else "ok",
            "data": self._masked(_plain(data)),
            "warnings": self.warnings,
            "error": self._error_data(error) if error else None,
        }

    def _error_data(self, error: PlatformError) -> dict[str, Any]:
        said = {
            "message": error.what,
            "why": error.why,
            "retryable": error.kind.retryable,
            "details": error.details,
            "actions": [{"id": str(i), "command": spoken(step)} for i, step in enumerate(error.steps, 1)],
        }
        return {"code": error.code, "category": error.exit.name.lower(), **self._masked(_plain(said))}

    def open_log(self, directory: Path) -> None:
        """Write what is said to `<directory>/<utc>-<task>.log`, too; keep the newest 20. Silent if it cannot."""
        from infra import private

        try:
            private.directory(directory.parent, private.way())
            private.directory(directory)
            name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            path = directory / f"{name}-{os.getpid()}-{self.command or 'run'}.log"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self.log = os.fdopen(descriptor, "a", encoding="utf-8")
            for old in sorted(directory.glob("*Z-*.log"))[:-KEEP_LOGS]:
                old.unlink(missing_ok=True)
        except OSError:
            self.log = None

    def close(self) -> None:
        """End the log."""
        if self.log is not None:
            with contextlib.suppress(OSError):
                self.log.close()
            self.log = None

    def _log(self, text: str) -> None:
        if self.log is not None:
            try:
                self.log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
                self.log.flush()
            except OSError:  # a full disk must not hide the message that says so
                self.log = None


def spoken(text: str) -> str:
    """Return a text with its commands as this program was called: `invoke up` or `platform up`."""
    called = Path(sys.argv[0] if sys.argv else "").stem
    return _INVOKE.sub(PROGRAM, text) if called == PROGRAM else text


def unicode_ok(stream: TextIO) -> bool:
    """Return whether the stream can carry the symbols."""
    return (getattr(stream, "encoding", "") or "").lower().replace("-", "") == "utf8"


def write_line(stream: TextIO, text: str, *, styled: bool = False, raw: bool = False) -> None:
    """Write a line; what the stream's encoding lacks is replaced, a closed pipe is no error.

    Args:
        styled: whether our own colours stay in it.
        raw: whether control characters stay as they are; else they are made visible.
    """
    text = text if raw else visible(text, styled)
    try:
        stream.write(text + "\n")
        stream.flush()
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def block(error: PlatformError, console: Console) -> list[str]:
    """Return the error block: what failed, why, the log's last lines, the next step, the code."""
    lines = [f"{console.symbol('bad')} {error.what}"]
    if error.why:
        lines.append(f"  why:  {error.why}")
    several = error.details.get("problems")
    if isinstance(several, Sequence):
        lines += [f"  - {line}" for line in several]
    log = error.details.get("log")
    if isinstance(log, Sequence) and log:
        lines += ["  last lines of its log:", *(f"    | {line}" for line in log)]
    lines += [f"  next: {step}" for step in error.steps]
    return [*lines, f"  code: {error.code} (exit {int(error.exit)}), see {DOCS}"]


def _plain(data: object) -> Any:
    """Return the data as JSON has it: paths and the like become text."""
    return json.loads(json.dumps(data, default=str))


# PowerShell ends a text at typographic quotes, too.
_POWERSHELL_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")
_QUOTES = {
    "": lambda n, v: f"{n}={_dotenv(v)}",
    "sh": lambda n, v: f"export {n}={_posix(v)}",
    "fish": lambda n, v: "set -gx {} '{}'".format(n, v.replace("\\", "\\\\").replace("'", "\\'")),
    "powershell": lambda n, v: f"$Env:{n} = '{_POWERSHELL_QUOTES.sub(_twice, v)}'",
    "cmd": lambda n, v: f'set "{n}={_cmd(v)}"',
}
SHELLS = tuple(s for s in _QUOTES if s)


def _twice(found: re.Match[str]) -> str:
    return found[0] * 2


def _posix(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _dotenv(value: str) -> str:
    """Quote so that shells and the readers of .env files agree, which they do on no single way for all values."""
    if re.fullmatch(r"[\w./:@%+,=-]*", value, re.ASCII):
        return value  # `docker run --env-file` takes quotes for a part of the value
    if not {"'", "\\"} & set(value) or {"$", "`"} & set(value):
        return _posix(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cmd(value: str) -> str:
    """Quote for a batch file: a quote in the value turns quoting off, and then special characters need a caret."""
    quoted, parts = True, []
    for character in value.replace("%", "%%"):
        quoted ^= character == '"'
        parts.append(f"^{character}" if character in "&|<>^()" and not quoted else character)
    return "".join(parts)


def env_lines(variables: Mapping[str, str], shell: str = "") -> list[str]:
    """Return the variables as `KEY='value'` lines, or as commands of a shell (one of SHELLS)."""
    return [_QUOTES[shell](name, value) for name, value in variables.items()]


def human_bytes(size: float) -> str:
    """Return a size for people: `1.4 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration for people: `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def printable(text: str) -> str:
    """Return a text from elsewhere, on one line and without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
