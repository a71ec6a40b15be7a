"""Figures of the platform as ratios against the bare programs, measured in one run: `nox -s bench`."""
