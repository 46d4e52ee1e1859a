"""Changes to the behaviour of libraries, one module a library: why, upstream's issue, and when to remove it."""
