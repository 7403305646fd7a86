"""Looking inside: what an EFNet does with one pair, as arrays and as pictures of them."""

from efnet.explain.explanation import (
    Clustering,
    Exchange,
    Explanation,
    Interaction,
    explain,
    explain_prepared,
)
from efnet.explain.html_report import write_explanation

__all__ = [
    "Clustering",
    "Exchange",
    "Explanation",
    "Interaction",
    "explain",
    "explain_prepared",
    "write_explanation",
]
