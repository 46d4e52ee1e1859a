"""The inbox of development: takes every mail that is sent, and shows it and all push messages on a page."""
