"""Pairs on disk: layouts, readers, checks, augmentation, and generated scenes."""
