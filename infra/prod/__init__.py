"""The production tier: a site file becomes plain YAML, which is checked, compared with a cluster and applied to it."""
