"""Plain processes on this machine, kept running by the supervisor."""
