"""Providers of e-mail and push as real servers on loopback, which follow their published contracts."""
