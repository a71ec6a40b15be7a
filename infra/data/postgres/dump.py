"""One database as a pg_dump archive in directory format, its data taken in while pg_dump writes it.

The bundled pg_dump is built without zstd, so it writes plain files and each is packed by us as it grows
(`1234.dat` becomes `1234.dat.zst`), digested on the way, and removed. The result is what
`pg_dump -Fd --compress=zstd:1` makes: any pg_restore from 16 on that has zstd reads it as it is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.data.postgres import clients, digest, reasons
from infra.data.postgres.children import Children
from infra.data.postgres.clients import Server
from infra.data.postgres.digest import Content
from infra.data.postgres.growing import PAUSE
from infra.errors import PlatformError

TOC = "toc.dat"
LOCK_WAIT = 30
"""Seconds that pg_dump waits for a table that someone holds exclusively."""
_ENTRY = re.compile(r"^(\d+); \d+ \d+ (.*)$")
_NEEDS = re.compile(r"^;\tdepends on:((?: \d+)+)$")
_LARGE = re.compile(r"^blob_(\d+)\.dat$")

# Settings of the dump itself; large objects are listed in another way by each version, and compared by content.
_NO_OBJECTS = ("ENCODING", "STDSTRINGS", "SEARCHPATH", "BLOB")
# What every version lists in the same way.
_LASTING = ("TABLE ", "VIEW ", "INDEX ", "CONSTRAINT ", "FK CONSTRAINT ", "SEQUENCE ", "FUNCTION ", "TRIGGER ", "TYPE ")

Take = Callable[[Path, Callable[[], bool]], Content]
"""Takes in a data file while it grows (the function says whether it may still grow)."""


@dataclass(frozen=True)
class Archive:
    """A dump: entries of its table of contents without numbers, and the content of each table.

    `files` are the names of the tables' files in the dump, where it was just made.
    """

    objects: tuple[str, ...]
    tables: Mapping[str, Content]
    files: Mapping[str, str] = field(default_factory=dict, compare=False)


def dump(
    server: Server, children: Children, database: str, raw: Path, take: Take, snapshot: str = "", name: str = ""
) -> Archive:
    """Run pg_dump into the new directory `raw`; each data file goes to `take` and is removed.

    Raises:
        PlatformError: BACKUP_FAILED with what pg_dump said.
    """
    argv = [server.clients.program("pg_dump"), "--format=directory", "--compress=0", "--no-sync", "--no-password"]
    argv += [f"--lock-wait-timeout={LOCK_WAIT}s", f"--file={raw}"]
    argv += [f"--snapshot={snapshot}"] if snapshot else []
    argv.append(f"--dbname={quoted(database)}")
    process = children.start(argv, clients.login(server, name))
    contents: dict[str, Content] = {}
    for path, growing in data_files(raw, lambda: process.poll() is not None):
        contents[path.name] = take(path, growing)
        path.unlink()
        if digest.is_table(path) and not contents[path.name].whole and process.poll() in (None, 0):
            raise PlatformError("BACKUP_FAILED", f"{database}: the rows in {path.name} have no end marker")
    result = children.finish(process)
    if result.code:
        raise reasons.dump_failed(server, database, argv, result)
    return _archive(server, children, raw, contents)


def quoted(database: str) -> str:
    """Return a database's name as a connection string: a name with = or :// in it would be taken for one."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def data_files(raw: Path, ended: Callable[[], bool]) -> Iterator[tuple[Path, Callable[[], bool]]]:
    """Yield each data file once, oldest first, as pg_dump begins it; it writes one after the other.

    The caller removes a file before it asks for the next.
    """
    while True:
        over = ended()
        found = _by_age(raw)
        if found:
            path = found[0]
            yield path, lambda path=path: not ended() and _newest(path, raw)  # type: ignore[misc]
        elif over:
            return
        else:
            time.sleep(PAUSE)


def _by_age(raw: Path) -> list[Path]:
    try:
        entries = [e for e in os.scandir(raw) if e.name.endswith(".dat") and e.name != TOC]
    except FileNotFoundError:
        return []
    return [Path(e.path) for e in sorted(entries, key=lambda e: (e.stat().st_mtime_ns, len(e.name), e.name))]


def _newest(path: Path, raw: Path) -> bool:
    """Return whether no other file was begun after this one was last written to."""
    mine = path.stat().st_mtime_ns
    return all(other.stat().st_mtime_ns <= mine for other in _by_age(raw) if other.name != path.name)


def _archive(server: Server, children: Children, raw: Path, contents: Mapping[str, Content]) -> Archive:
    entries = list_entries(server, children, raw)
    files = {_label(file, entries): file for file in contents}
    return Archive(objects(entries.values()), {label: contents[file] for label, file in files.items()}, files)


def _label(file: str, entries: Mapping[str, str]) -> str:
    large = _LARGE.match(file)
    return f"LARGE OBJECT {large[1]}" if large else entries[file.removesuffix(".dat")]


@dataclass(frozen=True)
class ArchiveEntry:
    """An entry of an archive's table of contents, and the numbers of those that it depends on."""

    label: str
    needs: frozenset[str] = frozenset()


def list_entries(server: Server, children: Children, directory: Path) -> dict[str, str]:
    """Return the entries of an archive's table of contents by their number.

    Raises:
        PlatformError: BACKUP_DAMAGED when pg_restore cannot read it.
    """
    lines = _listed(server, children, directory)
    return {m[1]: m[2] for m in map(_ENTRY.match, lines) if m}


def read_entries(server: Server, children: Children, directory: Path) -> dict[str, ArchiveEntry]:
    """Return the same with what each depends on; pg_restore says that only with entries which it does not restore."""
    found, number = dict[str, ArchiveEntry](), ""
    for line in _listed(server, children, directory, "--verbose"):
        if match := _ENTRY.match(line):
            number = match[1]
            found[number] = ArchiveEntry(match[2])
        elif number and (needs := _NEEDS.match(line)):
            found[number] = replace(found[number], needs=frozenset(needs[1].split()))
    return {number: found[number] for number in list_entries(server, children, directory)}


def _listed(server: Server, children: Children, directory: Path, *options: str) -> list[str]:
    argv = [server.clients.program("pg_restore"), "--list", *options, str(directory)]
    result = children.run(argv, clients.login(server))
    if result.code:
        raise clients.failure("BACKUP_DAMAGED", argv, result, f"{directory} is not a complete archive")
    return result.out.splitlines()


def listing(labels: Mapping[str, str], last: Sequence[str] = (), left_out: Container[str] = ()) -> str:
    """Return a table of contents for pg_restore.

    Args:
        labels: the entries by their number.
        last: tables whose rows come after those of all others.
        left_out: numbers of entries that it does not have.
    """
    entries = [f"{number}; 0 0 {label}" for number, label in labels.items() if number not in left_out]
    rows = [e for e in entries if any(" TABLE DATA " in e and f" {table} " in e for table in last)]
    end = max((n for n, e in enumerate(entries) if " TABLE DATA " in e), default=-1) + 1
    order = [*(e for e in entries[:end] if e not in rows), *rows, *entries[end:]]
    return "\n".join(order) + "\n"


def in_one_line(label: str) -> str:
    """Return an entry as pg_restore lists it: a name with a line break in it has a blank there."""
    return label.replace("\n", " ").replace("\r", " ")


def objects(entries: Iterable[str]) -> tuple[str, ...]:
    """Return the entries that say what the database consists of, sorted."""
    return tuple(sorted(e for e in entries if not e.startswith(_NO_OBJECTS)))


def other_objects(saved: Archive, found: Archive, same_version: bool = True) -> list[str]:
    """Return the objects that only one of two archives has, in words.

    Args:
        saved: one archive.
        found: the other.
        same_version: whether clients of one major version have written both; they list some kinds differently.
    """
    there, here = ({e for e in a.objects if same_version or e.startswith(_LASTING)} for a in (saved, found))
    return [f"missing: {e}" for e in sorted(there - here)] + [f"unexpected: {e}" for e in sorted(here - there)]


def different(saved: Archive, found: Archive) -> list[str]:
    """Return the tables whose content is not the same."""
    labels = sorted({*saved.tables, *found.tables})
    return [label for label in labels if saved.tables.get(label) != found.tables.get(label)]


def summary(archive: Archive) -> dict[str, object]:
    """Return the archive's content for a manifest."""
    tables = {label: {"rows": c.rows, "bytes": c.size, "digest": c.digest} for label, c in archive.tables.items()}
    return {"objects": list(archive.objects), "tables": tables}


def from_summary(facts: Mapping[str, object]) -> Archive:
    """Return the archive's content as a manifest has it.

    Raises:
        PlatformError: BACKUP_DAMAGED when it is not there.
    """
    try:
        tables = {k: Content(t["rows"], t["bytes"], t["digest"]) for k, t in facts["tables"].items()}  # type: ignore[attr-defined]
        return Archive(tuple(facts["objects"]), tables)  # type: ignore[arg-type]
    except (KeyError, TypeError, AttributeError) as error:
        raise PlatformError("BACKUP_DAMAGED", "the manifest does not mention the tables") from error
