"""The reference application around its code in apps/: run on this machine, built into images."""
