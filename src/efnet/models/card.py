"""The model card that goes with a checkpoint, written from what the checkpoint says of itself."""

from __future__ import annotations

from typing import Any

_TRAINED = (
    ("recipe", "recipe"),
    ("dataset", "data set"),
    ("train_split", "trained on split"),
    ("train_pairs", "training pairs"),
    ("selected_on", "checkpoint chosen on split"),
    ("selection_protocol", "by protocol"),
    ("epoch", "epoch"),
    ("epochs", "of epochs"),
    ("seed", "seed"),
)


def model_card(description: dict[str, Any], architecture: str, modality: str) -> str:
    """Markdown with the hub's metadata on top.

    Args:
        description: what `config.json` holds.
        architecture: of the network.
        modality: which images it looks at.

    Returns:
        the text of README.md.
    """
    trained = description["training"]
    facts = [f"| {label} | {trained[key]} |" for key, label in _TRAINED if key in trained]
    if trained.get("selection_miou") is not None:
        facts.append(f"| mIoU on that split | {100 * trained['selection_miou']:.2f} |")
    size = description["input"]["size"]
    lines = [
        "---",
        "library_name: efnet",
        "pipeline_tag: image-segmentation",
        f"tags: [{architecture}, rgb-thermal, semantic-segmentation]",
        "---",
        f"# {description['name']}",
        "",
        f"RGB-thermal semantic segmentation (arXiv 2501.10958), modality `{modality}`, "
        f"efnet {description['efnet_version']}.",
        "",
        f"Input: {f'{size[0]}x{size[1]}' if size else 'any size'}. "
        f"Classes: {', '.join(description['classes']['names'])}.",
        "",
        "```python",
        "import efnet",
        'predictor = efnet.Predictor.from_pretrained("this folder or repository")',
        "prediction = predictor(rgb_image, thermal_image)",
        "```",
    ]
    if facts:
        lines += ["", "| training | |", "|---|---|", *facts]
        lines += [
            "",
            "Limits: figures hold for the named split and protocol. The weights inherit the licence of the "
            "training data.",
        ]
    return "\n".join(lines) + "\n"
