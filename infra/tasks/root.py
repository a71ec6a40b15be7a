"""The tasks at the root: the verbs on whatever tier is meant."""

from infra.tasks import completion, stacks, verbs

TASKS = (*verbs.tasks(), *stacks.TASKS, *completion.TASKS)
