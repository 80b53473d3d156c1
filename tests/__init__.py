"""Homeward tests; each test name says the behaviour."""
