"""Data kept in Redis."""
