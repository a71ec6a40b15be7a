"""Programs that the start scripts call, and programs for maintainers."""
