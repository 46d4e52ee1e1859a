"""Providers of e-mail and push as real servers on loopback, which speak their published contracts."""
