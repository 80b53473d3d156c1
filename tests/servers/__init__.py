"""Real servers for tests: child processes on loopback, in folders of their own, stopped by process id."""
