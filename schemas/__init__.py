"""What an event is: pydantic models, one module per domain."""
