"""Recipes and the training loop."""

from efnet.training.config import TrainConfig
from efnet.training.loop import Interrupted, RunSummary, train
from efnet.training.recipes import RECIPES, get_recipe

__all__ = ["RECIPES", "Interrupted", "RunSummary", "TrainConfig", "get_recipe", "train"]
