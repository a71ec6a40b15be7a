"""Databases: backup, verification, restore, upgrade."""
