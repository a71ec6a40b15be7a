"""Buckets: backup, mirror, restore, pruning."""
