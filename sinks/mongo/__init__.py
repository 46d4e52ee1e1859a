"""Data kept in MongoDB."""
