"""Mapping a thermal image onto the view of its colour image."""
