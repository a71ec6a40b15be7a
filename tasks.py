"""The platform's tasks. `invoke --list` shows them; docs are in README.md."""

from infra.tasks.collection import collect

namespace = collect()
