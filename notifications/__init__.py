"""Whom to tell what, and when: rules, wording, states and policies. Pure: no clock, no network, no store."""
