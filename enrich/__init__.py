"""From an event to documents: pure functions, no clock, no network."""
