"""Turns events into documents: pure functions, without clock or network."""
