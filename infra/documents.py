"""The texts that are made from the catalogue: tables of the READMEs, `.env.example`, docs/errors.md.

Pure functions; `python -m scripts.write_docs` writes the files, and tests/drift compares them with what is committed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra import catalog, korean
from infra.endpoints import HOST
from infra.errors import CODES, EXIT_MEANING
from infra.rows import Gap, Port, Service, Setting

if TYPE_CHECKING:
    from infra.prod.cost import Cost


@dataclass(frozen=True)
class Language:
    """The words of the generated tables, and the catalogue's texts where they have to be translated."""

    services: tuple[str, ...]
    gaps: tuple[str, ...]
    no_login: str
    with_obs: str
    no_tier: str
    texts: Mapping[str, str] | None = None

    def text(self, english: str) -> str:
        """Return a text of the catalogue in this language; the English one where nobody has translated it."""
        return (self.texts or {}).get(english, english)


ENGLISH = Language(
    services=("service", "address", "login", "tiers"),
    gaps=("where", "what is missing", "why", "instead"),
    no_login="none",
    with_obs="with `--with-obs`",
    no_tier="none yet",
)
KOREAN = Language(
    services=("서비스", "주소", "로그인", "티어"),
    gaps=("위치", "없는 기능", "이유", "대안"),
    no_login="없음",
    with_obs="`--with-obs` 사용 시",
    no_tier="아직 없음",
    texts=korean.TEXTS,
)
READMES: Mapping[str, Language] = {"README.md": ENGLISH, "README.ko.md": KOREAN}
PRODUCTION = "docs/production.md"
PAGES = (*READMES, PRODUCTION)
"""Files written by hand with generated parts."""
ENV_EXAMPLE = ".env.example"
COMPOSE_ENV_EXAMPLE = "compose/.env.example"
COMPOSE_FILES = "compose/docker-compose*.yml"
ERRORS = "docs/errors.md"
COMMON = "helm/_common.tpl"
COPIED_FOLDERS: Mapping[str, str] = {
    "compose/obs/grafana/dashboards": "helm/observability/files/dashboards",
    "compose/obs/prometheus/rules": "helm/observability/files/rules",
}
"""Folders whose files a chart has, too: Helm reads none outside of the chart."""
COPIED = (COMMON, *(f"{folder}/*" for folder in COPIED_FOLDERS))
"""Files of which others are copies, as patterns."""


def rendered(
    readmes: Mapping[str, str], compose: Iterable[str], originals: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the text of every file that is generated, or has generated parts, by its path.

    Args:
        readmes: the present text of each file of `PAGES`.
        compose: the texts of the files of `COMPOSE_FILES`.
        originals: path and text of the files of `COPIED`.

    Raises:
        ValueError: a README lacks the markers of a table.
        KeyError: a Compose file has a variable that is no setting.
    """
    texts = {path: readme(readmes[path], language) for path, language in READMES.items()}
    variables = {name for text in compose for name in compose_variables(text)}
    env = {ENV_EXAMPLE: env_example(), COMPOSE_ENV_EXAMPLE: compose_env_example(variables)}
    production = with_section(readmes[PRODUCTION], "rules", rules_table())
    return {**texts, **env, ERRORS: errors_page(), PRODUCTION: production, **copies(originals or {})}


def copies(originals: Mapping[str, str]) -> dict[str, str]:
    """Return the charts' copies of what is shared, by path: templates, dashboards, alert rules."""
    found: dict[str, str] = {}
    for path, text in originals.items():
        folder, _, name = path.rpartition("/")
        if path == COMMON:
            found |= {f"helm/{chart.release}/templates/_common.tpl": text for chart in catalog.CHARTS}
        else:
            found[f"{COPIED_FOLDERS[folder]}/{name}"] = text
    return found


def rules_table() -> str:
    """Make the table of the rules of prod.check."""
    from infra.prod.rules import RULES

    return markdown_table(("rule", "demand"), ((f"`{rule.name}`", rule.demand) for rule in RULES))


def cost_table(costs: Mapping[str, Cost]) -> str:
    """Make the table of what a site needs in each size."""
    heading = ("size", "pods", "CPU requested", "memory requested", "memory at most", "largest pod")
    return markdown_table(heading, (_cost_row(size, cost) for size, cost in costs.items()))


def _cost_row(size: str, cost: Cost) -> tuple[str, ...]:
    from infra.prod.cost import gib

    largest = f"{cost.largest.cpu:.2f} cores, {gib(cost.largest.memory)}"
    room = (f"{cost.cpu:.2f} cores", gib(cost.memory), gib(cost.most), largest)
    return (f"`{size}`", str(len(cost.shares)), *room)


def compose_variables(text: str) -> dict[str, str]:
    """Name -> default of every variable `${NAME:-default}` of a Compose file; comments are left out."""
    lines = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())
    return {name: default or "" for name, default in re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)(?::-([^${}]*))?", lines)}


def readme(text: str, language: Language) -> str:
    """Return a README with its generated tables brought up to date."""
    text = with_section(text, "services", services_table(language))
    return with_section(text, "gaps", gaps_table(language))


def with_section(text: str, name: str, body: str) -> str:
    """Return the text with what is between `<!-- name:begin -->` and `<!-- name:end -->` replaced.

    Raises:
        ValueError: one of the markers is missing or there twice.
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one {begin.strip()} and, after it, one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}{body}{end}{rest.split(end)[1]}"


def markdown_table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table, one line a row."""
    lines = [list(heading)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def services_table(language: Language) -> str:
    """Make the table of services: address, login, tiers."""
    return markdown_table(language.services, (_service_row(s, language) for s in catalog.SERVICES))


def _service_row(service: Service, language: Language) -> tuple[str, ...]:
    addresses = ", ".join(_address(port, named=len(service.ports) > 1) for port in service.ports)
    return language.text(service.title), addresses, _login(service, language), _tiers(service, language)


def _address(port: Port, named: bool) -> str:
    where = f"{HOST}:{port.default}"
    shown = f"<http://{where}>" if port.scheme == "http" else f"`{where}`"
    return f"{shown} ({port.role})" if named else shown


def _login(service: Service, language: Language) -> str:
    if service.login is None:
        return language.no_login
    return " / ".join(f"`{catalog.SETTINGS[name].default}`" for name in service.login)


def _tiers(service: Service, language: Language) -> str:
    tiers = ", ".join(t for t in catalog.TIERS if service in catalog.offered(t)) or language.no_tier
    extra = service.overlay == catalog.OVERLAY_OBS and tiers != language.no_tier
    return f"{tiers}, {language.with_obs}" if extra else tiers


def gaps_table(language: Language) -> str:
    """Make the table of what a tier, or an object store engine, cannot do."""
    return markdown_table(language.gaps, (_gap_row(g, language) for g in catalog.GAPS))


def _gap_row(gap: Gap, language: Language) -> tuple[str, ...]:
    return gap.where, f"`{gap.feature}`", language.text(gap.reason), language.text(gap.instead)


_CONTAINERS = tuple(
    f"PLATFORM_{name}"
    for name in ("STACK", "IMAGE_MIRRORS", "LEAVE_OUT", "LIGHT", "S3_ENGINE", "METRICS_DIR", "DOCKER_SOCKET")
)
_GROUPS: tuple[tuple[str, Callable[[Setting], bool]], ...] = (
    ("Ports on 127.0.0.1", lambda s: s.kind == "port"),
    ("Images to use instead of those in compose/ and helm/", lambda s: s.name in catalog.IMAGES),
    ("Users, passwords and names", lambda s: not s.name.startswith("PLATFORM_")),
    ("Containers", lambda s: s.name in _CONTAINERS),
    ("Tier and directories", lambda s: s.kind in ("choice", "path") and not s.name.endswith("_BIN")),
    ("Programs of the native tier", lambda s: True),
)
_ENV_HEAD = """\
# Settings of the platform, with their defaults. Generated from infra/catalog.py: do not edit this file.
#
#   cp .env.example .env, then uncomment what you want to change.
#
# Precedence: flags, then the environment, then .env, then the defaults.
# This is not your application's .env; write that one with  invoke env --write PATH
"""


def env_example() -> str:
    """Make `.env.example`: every setting, commented out, with its default and what it means."""
    return _ENV_HEAD + "".join(f"\n# --- {title}\n{''.join(lines)}" for title, lines in grouped().items())


_COMPOSE_HEAD = """\
# Settings of the Compose files. Generated from them and infra/catalog.py: do not edit this file.
#
#   cp compose/.env.example compose/.env, then uncomment what you want to change.
#
# Needed only where Compose is called by hand; `invoke` reads .env in the checkout, which takes the same names.
# An image left empty is the one named in the file. A value with $, # or a blank goes between single quotes.
# POSTGRES_PASSWORD can have neither a blank nor " nor \\, with which Temporal's server cannot log in.
"""


def compose_env_example(names: Iterable[str]) -> str:
    """Make `compose/.env.example`: the settings that the Compose files know, as in `.env.example`."""
    settings = [catalog.SETTINGS[name] for name in names]
    lines = {title: "".join(lines) for title, lines in grouped(settings).items() if lines}
    return _COMPOSE_HEAD + "".join(f"\n# --- {title}\n{text}" for title, text in lines.items())


def grouped(settings: Iterable[Setting] = tuple(catalog.SETTINGS.values())) -> dict[str, list[str]]:
    """Return the settings as lines of `.env.example`, by the title of their group, in the catalogue's order."""
    groups: dict[str, list[str]] = {title: [] for title, _ in _GROUPS}
    order = list(catalog.SETTINGS)
    for setting in sorted(settings, key=lambda s: order.index(s.name)):
        title = next(title for title, belongs in _GROUPS if belongs(setting))
        groups[title].append(_setting(setting))
    return groups


def _setting(setting: Setting) -> str:
    choices = f" (of: {', '.join(setting.choices)})" if setting.choices else ""
    return f"\n# {setting.help}{choices}\n#{setting.name}={setting.default}\n"


_ERRORS_HEAD = f"""\
# Exit codes and error codes

Generated from `infra/errors.py`: do not edit this file.

Every failed task prints one block on stderr: what failed, why, the last lines of the log if there is one,
what to do next, and the error code with the exit code.

```
✗ no service 'temporl' on the native tier
  next: did you mean temporal?
  next: the services are: {", ".join(service.name for service in catalog.offered("native"))}
  code: USAGE (exit 2), see docs/errors.md
```

With `--json`, stdout is exactly one object: `error` is `null`, or has `code`, `category`, `message`, `why`,
`retryable`, `details` and `actions`. Scripts should check the exit code or `error.code`, never the message.
The scripts in `scripts/` use the same exit codes.
"""


def errors_page() -> str:
    """Make docs/errors.md: exit codes and error codes."""
    exits = ((f"{int(c)}", f"`{c.name.lower()}`", meaning) for c, meaning in EXIT_MEANING.items())
    codes = ((f"`{n}`", f"{int(k.exit)}", "yes" if k.retryable else "", k.summary) for n, k in CODES.items())
    sections = {
        "Exit codes": markdown_table(("exit", "category", "meaning"), exits),
        "Error codes": markdown_table(("code", "exit", "retryable", "meaning"), codes),
    }
    return _ERRORS_HEAD + "".join(f"\n## {title}\n\n{table}" for title, table in sections.items())
