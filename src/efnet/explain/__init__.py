"""Looking inside: what an EFNet does with one pair, as arrays and as pictures of them."""

from efnet.explain.explain_page import write_explanation
from efnet.explain.explanation import Clustering, Exchange, Explanation, Interaction
from efnet.explain.observe import explain, explain_prepared

__all__ = [
    "Clustering",
    "Exchange",
    "Explanation",
    "Interaction",
    "explain",
    "explain_prepared",
    "write_explanation",
]
