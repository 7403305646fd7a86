"""Two videos or cameras segmented frame by frame: reading, matching by time, writing.

Needs PyAV: `pip install "efnet[video]"`.
"""

from efnet.video.matching import Moment, match
from efnet.video.options import VideoOptions, VideoSummary
from efnet.video.segment import predict_video
from efnet.video.source import Frame, Source, is_video
from efnet.video.writer import VideoWriter

__all__ = [
    "Frame",
    "Moment",
    "Source",
    "VideoOptions",
    "VideoSummary",
    "VideoWriter",
    "is_video",
    "match",
    "predict_video",
]
