"""The platform's tasks. `invoke --list` shows them; docs are in README.md."""

import sys

# Invoke turns this off for its own sake, and all of infra would be compiled again at every call.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from infra.tasks.collection import collect  # noqa: E402

namespace = collect()
