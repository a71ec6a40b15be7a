"""Servers that tests start: S3 engines as plain processes, and one that says exactly what a test wants."""
