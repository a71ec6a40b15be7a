"""The frontend: one static page, and a way to the backend on the same address."""
