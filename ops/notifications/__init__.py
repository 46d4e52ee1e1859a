"""What operators see of notifications: timelines and look-ups, with personal data masked."""
