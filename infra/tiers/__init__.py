"""The tiers: who runs the processes. Each offers the verbs of `infra.tiers.base.Tier`."""
