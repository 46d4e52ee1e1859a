"""Receipts: what providers report, and what they change in the logs of messages."""
