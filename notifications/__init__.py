"""Whom to tell what, and when: rules, wording, states and policies of notifications. Pure: no clock, no network, no store."""
