"""The events: pydantic models, one module per domain."""
