"""The platform's tasks. `invoke --list` shows them; docs are in README.md."""

import sys
from importlib.util import find_spec
from pathlib import Path

if sys.version_info < (3, 11) or find_spec("dotenv") is None or find_spec("psutil") is None:
    _folder = Path(__file__).resolve().parent / ".venv" / ("Scripts" if sys.platform == "win32" else "bin")
    _start = Path(__file__).resolve().parent / "scripts" / "start-infra.sh"
    sys.stderr.write(
        f"error: this Invoke runs in {sys.executable}, which lacks the platform's packages\n"
        f"  next: {_folder / 'invoke' if _folder.is_dir() else _start}\n  exit: 5\n"
    )
    sys.exit(5)

# Invoke turns this off for its own sake, and all of infra would be compiled again at every call.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from infra.tasks.collection import collect  # noqa: E402

namespace = collect()
