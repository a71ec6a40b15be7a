"""The tasks at the root: the verbs on whatever tier is meant."""

from infra.tasks import verbs

TASKS = verbs.tasks()
