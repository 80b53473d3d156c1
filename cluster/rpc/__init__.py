"""The gRPC surface: servicers, conversions, and the one table from errors to status codes."""
