"""The `homeward` command: every verb is a gRPC client of a server, running or started for the call."""
