"""Providers of push messages."""
