"""What `GET /v1/model` says."""

from __future__ import annotations

from efnet import __version__
from efnet.prediction.predictor import Predictor
from efnet.service.limits import Limits
from efnet.service.schemas import ClassInfo, InputInfo, LimitInfo, ModelInfo, Size

_IMAGES = {
    "rgbt": [["rgb", "thermal"], ["rgbt"]],
    "rgb": [["rgb"], ["rgbt"]],
    "thermal": [["thermal"], ["rgbt"]],
}


def describe_model(predictor: Predictor, limits: Limits) -> ModelInfo:
    """Everything a client may want to know before it sends something."""
    model, size = predictor.model, predictor.size
    return ModelInfo(
        name=model.name,
        architecture=model.architecture,
        efnet_version=__version__,
        modality=predictor.modality,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(predictor.device),
        precision=predictor.precision,
        config=model.config.to_dict(),
        classes=[
            ClassInfo(index=k, name=name, color=color)
            for k, (name, color) in enumerate(
                zip(predictor.classes.names, predictor.classes.palette, strict=True)
            )
        ],
        input=InputInfo(
            images=_IMAGES[predictor.modality],
            size=None if size is None else Size(height=size[0], width=size[1]),
            thermal_scale=predictor.thermal_scale,
        ),
        training=model.training_summary,
        limits=LimitInfo(
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            timeout_seconds=limits.timeout,
            max_concurrent=limits.max_concurrent,
            batch_size=limits.batch_size,
        ),
    )
