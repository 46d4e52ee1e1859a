"""Agents that create, send and track notifications."""
