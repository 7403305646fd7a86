"""Recipes and the training loop."""

from efnet.training.config import TrainConfig
from efnet.training.recipes import RECIPES, get_recipe
from efnet.training.train import Interrupted, RunSummary, train

__all__ = ["RECIPES", "Interrupted", "RunSummary", "TrainConfig", "get_recipe", "train"]
