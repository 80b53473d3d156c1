"""Generated from proto/homeward/v1; `make proto` writes it, a test compares."""
