"""Looking inside: what an EFNet does with one pair, as arrays and as pictures of them."""

from efnet.explain.observe import explain, explain_prepared
from efnet.explain.result import Clustering, Exchange, Explanation, Interaction
from efnet.explain.write import write_explanation

__all__ = [
    "Clustering",
    "Exchange",
    "Explanation",
    "Interaction",
    "explain",
    "explain_prepared",
    "write_explanation",
]
