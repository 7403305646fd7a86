"""Generated RGB-thermal street scenes with MFNet's classes, by day and by night."""

from efnet.scenes.sensor import render
from efnet.scenes.writer import DatasetPlan, SceneLayout, WrittenDataset, write_dataset

__all__ = ["DatasetPlan", "SceneLayout", "WrittenDataset", "render", "write_dataset"]
