"""The basis of every other room: settings, metrics, health, logging, patches."""
