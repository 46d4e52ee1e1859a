"""The guarantee: a batch in, an idempotent write out, the offset committed last. Knows nothing of blogs."""
