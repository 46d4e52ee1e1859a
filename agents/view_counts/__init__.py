"""Agents that count page views by windows and keep the counts in PostgreSQL and Redis."""
