"""Snapshots: databases, buckets, Redis and Temporal of one moment."""
