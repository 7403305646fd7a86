"""Exact density-peaks clustering of tokens (EFNet, arXiv 2501.10958, equations 1-3)."""
