"""Before a training: tables up to date, dataset complete. `python -m infra.training.prepare`

A program of its own, so that the packages it needs do not stay in the worker's memory.
"""

from __future__ import annotations

import sys

from infra.errors import PlatformError
from infra.training import contract, dataset
from infra.training.jobs import Jobs
from infra.training.output import say
from infra.training.patience import EXIT_TEMPORARY, Unavailable
from infra.training.store import S3Store


def main() -> int:
    """Prepare and return the exit status (75: a server was away)."""
    try:
        found = contract.read()
        Jobs(found).migrate()
        published = dataset.publish(S3Store(found.datasets))
    except Unavailable as error:
        say(str(error))
        return EXIT_TEMPORARY
    except PlatformError as error:
        say(error.what)
        return int(error.exit)
    say(f"dataset {dataset.DATASET}: {published.count} images, {published.sent} sent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
