"""Containers of Docker Compose."""
