"""Dead letters: records that could not be processed, with the reason."""
