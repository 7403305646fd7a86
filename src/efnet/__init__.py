"""EFNet: RGB-thermal semantic segmentation (arXiv 2501.10958)."""

__version__ = "0.1.0"
