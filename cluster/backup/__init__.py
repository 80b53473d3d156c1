"""Backups: everything that is true of a Homeward, sealed with the operator's key, and back again."""
