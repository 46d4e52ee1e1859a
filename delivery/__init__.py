"""The delivery guarantee: read a batch, write it idempotently, commit the offset last. Knows nothing of blogs."""
