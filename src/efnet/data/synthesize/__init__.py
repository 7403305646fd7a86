"""Generated RGB-thermal street scenes with MFNet's classes, by day and by night."""

from efnet.data.synthesize.renderer import render
from efnet.data.synthesize.writer import DatasetPlan, SceneLayout, WrittenDataset, write_dataset

__all__ = ["DatasetPlan", "SceneLayout", "WrittenDataset", "render", "write_dataset"]
