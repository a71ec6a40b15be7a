"""Images of several releases on their way into the cluster: what starts first gets its own first.

The releases that need no other start as soon as their images are there; those of the others are loaded meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra.tiers.kind.images import Load

HELD = "its images are being loaded"


@dataclass
class Convoy:
    """A load in two parts: `of` are the images of each release, `first` the releases that start at once."""

    load: Load
    of: Mapping[str, Sequence[str]]
    first: Sequence[str]
    _thread: threading.Thread | None = None
    _errors: list[BaseException] = field(default_factory=list)

    def begin(self) -> None:
        """Load the first part, and the rest in the background.

        Raises:
            PlatformError: what the first part raises; what the other does comes from `held` and `finish`.
        """
        self.load.carry(self._images(self.first))
        rest = self._images([name for name in self.of if name not in self.first])
        if set(rest) & set(self.load.missing) - set(self._images(self.first)):
            self._thread = threading.Thread(target=self._carry, args=(rest,), daemon=True)
            self._thread.start()

    def held(self, release: str) -> str:
        """Tell why a release cannot start yet, or '' when it can. Raises what the loading has raised."""
        if self._errors:
            raise self._errors[0]
        under_way = self._thread is not None and self._thread.is_alive()
        return HELD if under_way and release not in self.first else ""

    def finish(self) -> None:
        """Wait for the rest. Raises what the loading has raised."""
        if self._thread is not None:
            self._thread.join()
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """End what is still under way: nobody waits for it any more."""
        if self._thread is not None and self._thread.is_alive():
            self.load.streams.end()

    def _carry(self, images: Sequence[str]) -> None:
        first = set(self._images(self.first))
        try:
            self.load.carry(image for image in images if image not in first)
        except BaseException as error:
            self._errors.append(error)

    def _images(self, releases: Sequence[str]) -> list[str]:
        return [image for name in releases for image in self.of.get(name, ())]
