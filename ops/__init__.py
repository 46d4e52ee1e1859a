"""What people run: commands, and what only they use."""
