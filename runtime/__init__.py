"""What every other room stands on: settings, metrics, health, logging."""
