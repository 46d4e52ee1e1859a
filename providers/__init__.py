"""Vendors of e-mail and push messages, one module each."""
