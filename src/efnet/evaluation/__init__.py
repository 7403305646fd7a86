"""Protocols, the confusion matrix, and the reports made from it."""
