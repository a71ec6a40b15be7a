"""Plain processes, without Docker: the verbs on the native tier."""

from infra.tasks import verbs

TASKS = verbs.tasks("native")
