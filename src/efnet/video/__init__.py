"""Two videos or cameras segmented frame by frame: reading, matching by time, writing.

Needs PyAV: `pip install "efnet[video]"`.
"""

from efnet.video.segment import VideoOptions, VideoSummary, VideoWriter, predict_video
from efnet.video.source import Frame, Moment, Source, is_video, match

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
