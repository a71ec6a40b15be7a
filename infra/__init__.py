"""The infrastructure of a Vision AI training platform: one platform, several tiers."""
