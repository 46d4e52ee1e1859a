"""What happens: the topology in `app.py`, and one verb per module."""
