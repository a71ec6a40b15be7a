"""The production tier, rehearsed on a cluster of kind with the real operators: one control plane, three workers."""
