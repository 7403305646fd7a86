"""Recipes and the training loop."""

from efnet.training.config import RECIPES, TrainConfig, get_recipe
from efnet.training.launch import train
from efnet.training.run_folder import Interrupted, RunSummary

__all__ = ["RECIPES", "Interrupted", "RunSummary", "TrainConfig", "get_recipe", "train"]
