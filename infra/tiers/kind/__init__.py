"""A Kubernetes cluster in containers of this machine."""
