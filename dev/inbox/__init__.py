"""The inbox of development: accepts every mail, and shows it and all push messages on a page."""
