"""Data that people keep: backups, restores, mirrors, snapshots, the trash; from endpoints alone, on any tier."""
