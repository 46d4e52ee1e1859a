"""The platform's servers as local processes, started from packages instead of containers."""
