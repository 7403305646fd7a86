"""Faults of cameras made to order: each changes one image of a pair, at five severities."""
