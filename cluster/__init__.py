"""What an operator runs: services, gRPC server, command line, composition."""
