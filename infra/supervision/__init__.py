"""The supervisor of plain processes, and what others ask of it through files."""
