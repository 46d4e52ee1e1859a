"""What operating it takes: settings, metrics, health, commands."""
