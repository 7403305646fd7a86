"""Pairs packed into tar files, read where they lie: nothing is ever extracted."""
