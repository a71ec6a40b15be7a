"""Kubernetes from outside: which programs, their command lines, what a cluster says and how releases get there."""
