"""Releases, services and logs on any Kubernetes cluster, through a kubeconfig; without kind or Docker."""
