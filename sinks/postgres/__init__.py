"""Data kept in PostgreSQL."""
