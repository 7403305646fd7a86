"""Learning from a teacher and from pairs without masks: the terms, the data, and whole runs."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.data.layouts import open_split
from efnet.data.unlabelled import SETTINGS_FILE, SemiDataset, open_unlabelled
from efnet.models import InputSpec, SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.training import Interrupted, get_recipe
from efnet.training import train as run_training
from efnet.training.config import DataConfig, EmaConfig, NetworkConfig, ScheduleConfig, TeachConfig
from efnet.training.logs import Reporter, Steps
from efnet.training.step import Learner
from efnet.training.teaching import (
    StageMaps,
    Teaching,
    confident_classes,
    distillation_loss,
    load_teacher,
    similarity_loss,
)


def test_distillation_is_the_divergence_of_softened_probabilities() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    p, q = (torch.softmax(logits.double() / 3, dim=1) for logits in (teacher, student))
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation_loss(student, teacher, 3.0)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distillation_loss(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


def test_similarities_of_cells_by_hand() -> None:
    """One stage whose cells agree, and one with opposite directions; sizes and channels differ."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    total = 0.0
    for image in range(2):
        cells = [
            [
                student[image, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
                for y in (0, 1)
                for x in (0, 1, 2)
            ],
            [teacher[image, :, y, x] for y in (0, 1) for x in (0, 1, 2)],
        ]
        for a in range(6):
            for b in range(6):
                ours, theirs = (float(torch.cosine_similarity(each[a], each[b], dim=0)) for each in cells)
                total += (ours - theirs) ** 2 / 72
    # Scale and sign of all features change no cosine: the second stage adds nothing to the mean.
    loss = similarity_loss([student, -3 * teacher], [teacher, teacher])
    assert float(loss) == pytest.approx(total / 2, rel=1e-4)


@pytest.mark.parametrize("name", ["efnet_tiny", "efnet_edge"])
def test_stages_are_those_of_the_last_pass(name: str) -> None:
    network = efnet.create_model(name)
    maps = StageMaps(network)
    network(torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96))
    taken = maps.take()
    assert len(taken) == 4
    assert taken[0].shape[2:] == (16, 24)
    assert all(features.requires_grad for features in taken)
    assert maps.take() == []


def test_features_need_stages_and_a_teacher() -> None:
    with pytest.raises(InputError, match=r"teach\.features.*mfnet has none"):
        StageMaps(efnet.create_model("mfnet"))
    with pytest.raises(InputError, match=r"needs `teach\.teacher`"):
        TeachConfig(features=1)


def test_classes_below_the_confidence_do_not_count() -> None:
    logits = torch.tensor([[4.0, 0.0], [1.0, 0.9], [-3.0, 5.0]]).T.reshape(1, 2, 1, 3)
    # Probabilities of the winners: 0.982, 0.525, 0.9997.
    assert confident_classes(logits, 0.9).flatten().tolist() == [0, 255, 1]
    assert confident_classes(logits, 0.0).flatten().tolist() == [0, 0, 1]


class Fixed(SegmentationModel):
    """Gives the same logits for every pair, and remembers what it saw."""

    def __init__(self, logits: Tensor) -> None:
        nn.Module.__init__(self)
        self.logits = nn.Parameter(logits)
        self.seen: list[Tensor] = []

    def forward(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        assert rgb is not None
        self.seen.append(rgb)
        return self.logits.expand(len(rgb), -1, -1, -1)


def pairs(label: list[list[int]]) -> dict[str, Tensor]:
    weak, strong = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    views = {"rgb": weak, "thermal": weak[:, :1], "strong_rgb": strong, "strong_thermal": strong[:, :1]}
    return views | {"label": torch.tensor([label])}


def test_pairs_without_masks_by_hand() -> None:
    """Of four pixels one is unsure and one beyond the image: half the mean cross-entropy of the others."""
    sure, unsure = [5.0, 0.0], [0.2, 0.0]
    teacher = Fixed(torch.tensor([sure, unsure, sure, sure]).T.reshape(1, 2, 2, 2))
    student = Fixed(torch.tensor([[0.0, 1.0]] * 4).T.reshape(1, 2, 2, 2))
    teaching = Teaching(TeachConfig(confidence=0.9, unlabelled_weight=3), None, has_labels=False)
    loss = teaching.semi_supervised(student, teacher, pairs([[0, 0], [0, 255]]))
    wrong = float(torch.log1p(torch.tensor(1.0).exp()))  # of class 0 where class 1 leads by one
    assert loss.item() == pytest.approx(3 * 0.5 * wrong, rel=1e-5)
    assert not teacher.seen[0].any(), "the teacher sees the pair as it is"
    assert student.seen[0].all(), "the student sees it changed"
    loss.backward()
    assert teacher.logits.grad is None


def test_pseudo_labels_on_disk_need_no_teacher() -> None:
    student = Fixed(torch.tensor([[0.0, 1.0]] * 4).T.reshape(1, 2, 2, 2))
    loss = Teaching(TeachConfig(), None, has_labels=True).semi_supervised(
        student, None, pairs([[1, 1], [1, 1]])
    )
    assert loss.item() == pytest.approx(float(torch.log1p(torch.tensor(-1.0).exp())), rel=1e-5)


def test_no_teacher_adds_nothing_to_labelled_pairs() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    assert float(Teaching(TeachConfig(), None, has_labels=True).distil(logits, logits, logits)) == 0


def write_images(root: Path, names: list[str], size: tuple[int, int] = (40, 60)) -> None:
    """Pairs whose colour and thermal image say where each pixel lies: a ramp to the right."""
    ramp = np.linspace(40, 215, size[1]).astype(np.uint8)[None].repeat(size[0], 0)
    for folder, image in (("rgb", np.stack([ramp] * 3, axis=-1)), ("thermal", ramp)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.fromarray(image).save(root / folder / f"{name}.png")


@pytest.fixture
def semi(scenes: Path, tmp_path: Path) -> SemiDataset:
    write_images(tmp_path / "more", ["a", "b", "c"])
    split = open_split("mfnet", scenes, "train")
    augment = AugmentConfig(scale=(0.5, 2))
    return SemiDataset(
        split, open_unlabelled(str(tmp_path / "more"), split), size=(32, 48), augment=augment, seed=3
    )


def as_array(value: Tensor) -> NDArray[np.float32]:
    return value.numpy()


def test_items_hold_two_views_of_one_place(semi: SemiDataset) -> None:
    semi.set_epoch(1)
    changed = 0
    for index in range(len(semi)):
        item = semi[index]
        plain = {key: value for key, value in item.items() if not key.startswith("unlabelled_")}
        assert plain.keys() == {"rgb", "thermal", "label", "index"}
        assert len(semi) <= int(item["unlabelled_index"]) < len(semi) + 3
        weak, strong = as_array(item["unlabelled_thermal"])[0], as_array(item["unlabelled_strong_thermal"])[0]
        inside = as_array(item["unlabelled_label"]) != 255
        assert inside.any()
        # A power, a gain and an offset keep the order of values wherever they are not cut off.
        free = inside & (strong > 0) & (strong < 1)
        order = np.argsort(weak[free], kind="stable")
        assert (np.diff(strong[free][order]) >= -1e-6).all()
        changed += not np.allclose(weak, strong, atol=0.01)
    assert changed >= len(semi) - 1


def test_items_depend_on_seed_epoch_and_index_alone(semi: SemiDataset) -> None:
    semi.set_epoch(2)
    first = semi[3]
    semi[0], semi[5]
    again = semi[3]
    assert all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(again[key])) for key in first)
    semi.set_epoch(3)
    assert not torch.equal(semi[3]["unlabelled_strong_rgb"], first["unlabelled_strong_rgb"])


def test_a_folder_without_pairs(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pairs; put their images into"):
        open_unlabelled(str(tmp_path), open_split("mfnet", scenes, "train"))


def test_teachers_of_other_classes_are_refused(scenes: Path, tmp_path: Path) -> None:
    efnet.create_model("mfnet", 3).save_pretrained(tmp_path / "three")
    with pytest.raises(InputError, match="a network of other classes"):
        load_teacher(
            str(tmp_path / "three"),
            open_split("mfnet", scenes, "train").classes,
            efnet.create_model("mfnet"),
            "auto",
        )
    teacher = efnet.create_model("mfnet", 9)
    teacher.input = InputSpec(None, (0.0, 100.0))
    teacher.save_pretrained(tmp_path / "range")
    with pytest.raises(InputError, match="thermal range"):
        load_teacher(str(tmp_path / "range"), teacher.classes, teacher, "auto")


COMMON = ("--dataset", "mfnet", "--model", "mfnet", "--size", "32x48", "--batch-size", "2", "--workers", "0")
COMMON += ("--device", "cpu", "--recipe", "scratch", "--quiet", "--validation.samples", "0")


def train(scenes: Path, out: Path, *words: str) -> list[float]:
    """Run the command; return the loss of each epoch."""
    assert main(["train", "--root", str(scenes), "--out", str(out), *COMMON, *words]) == 0
    return losses(out)


def losses(out: Path) -> list[float]:
    return [
        json.loads(line)["loss"]
        for line in (out / "metrics.jsonl").read_text().splitlines()
        if "loss" in line
    ]


def test_runs_with_each_teacher(scenes: Path, tmp_path: Path) -> None:
    """A mean teacher, a given one, and pseudo-labels: each changes the loss and is named in the run."""
    write_images(tmp_path / "more", ["a", "b"])
    plain = train(scenes, tmp_path / "plain", "--epochs", "1")
    mean = (
        "--epochs",
        "1",
        "--unlabelled",
        str(tmp_path / "more"),
        "--ema.decay",
        "0.9",
        "--teach.confidence",
        "0.1",
    )
    assert train(scenes, tmp_path / "mean", *mean)[0] > plain[0]
    given = train(scenes, tmp_path / "given", "--epochs", "1", "--teacher", str(tmp_path / "plain"))
    assert given[0] != plain[0]
    (tmp_path / "more" / "labels").mkdir()
    for name in "ab":
        Image.fromarray(np.full((40, 60), 2, dtype=np.uint8)).save(
            tmp_path / "more" / "labels" / f"{name}.png"
        )
    classes = {"classes": list(open_split("mfnet", scenes, "train").classes.names)}
    (tmp_path / "more" / SETTINGS_FILE).write_text(json.dumps(classes))
    fixed = train(scenes, tmp_path / "fixed", "--epochs", "1", "--unlabelled", str(tmp_path / "more"))
    assert fixed[0] > plain[0]
    facts = json.loads((tmp_path / "given" / "best" / "config.json").read_text())["training"]
    assert facts["teacher"] == "plain"
    facts = json.loads((tmp_path / "fixed" / "run.json").read_text())
    assert facts["data"]["unlabelled"]["pairs"] == 2


class InterruptAfterTwo(Reporter):
    """Presses Ctrl-C after two steps."""

    def steps(self, total: int, done: int) -> Any:
        manager = super().steps(total, done)

        class Counting:
            def __enter__(self) -> Any:
                self.steps, self.count = manager.__enter__(), 0
                return self

            def __exit__(self, *error: Any) -> Any:
                return manager.__exit__(*error)

            def advance(self, *values: Any) -> None:
                Steps.advance(self.steps, *values)
                self.count += 1
                if self.count == 2:
                    signal.raise_signal(signal.SIGINT)

        return Counting()


def test_a_student_of_stages(scenes: Path, tmp_path: Path) -> None:
    """Their term adds to the loss; the averaged weights are copied, validated and saved as without it."""
    name = ("--model", "efnet_edge", "--epochs", "1", "--ema.decay", "0.9")
    train(scenes, tmp_path / "teacher", *name)
    teach = (*name, "--seed", "1", "--teacher", str(tmp_path / "teacher"), "--teach.weight", "0")
    without = train(scenes, tmp_path / "without", *teach)
    student = train(scenes, tmp_path / "student", *teach, "--teach.features", "10")
    assert student[0] > without[0]


def test_a_pair_without_a_mask_is_named(scenes: Path, tmp_path: Path) -> None:
    """Where its term alone is not finite."""
    write_images(tmp_path / "more", ["a", "b", "c"])
    split = open_split("mfnet", scenes, "train")
    semi = SemiDataset(
        split, open_unlabelled(str(tmp_path / "more"), split), size=(32, 48), augment=AugmentConfig()
    )
    config = dataclasses.replace(
        get_recipe("scratch"), data=DataConfig(size=(32, 48), batch_size=2), device="cpu"
    )
    network = efnet.create_model("mfnet", classes=split.classes)
    teaching = Teaching(TeachConfig(confidence=0), efnet.create_model("mfnet", classes=split.classes), False)
    learner = Learner(config, network, (), (), 10, teaching=teaching)
    batch = torch.utils.data.default_collate([semi[0], semi[1]])
    batch["unlabelled_strong_rgb"][0] = float("nan")
    outcome = learner.step(batch, 0)
    assert outcome.fault == "the loss is not finite"
    assert outcome.pairs == tuple(batch["unlabelled_index"].tolist())


def test_a_resumed_run_is_the_uninterrupted_one(scenes: Path, tmp_path: Path) -> None:
    """With a mean teacher, whose weights are part of the state, and random pairs beside each step."""
    write_images(tmp_path / "more", ["a", "b", "c"])
    config = dataclasses.replace(
        get_recipe("scratch"),
        data=DataConfig(root=str(scenes), size=(32, 48), batch_size=2, workers=0),
        network=NetworkConfig(name="mfnet"),
        schedule=ScheduleConfig(epochs=1),
        ema=EmaConfig(decay=0.9),
        teach=TeachConfig(unlabelled=str(tmp_path / "more"), confidence=0.15),
        device="cpu",
    )
    run_training(config, tmp_path / "whole", reporter=Reporter(quiet=True))
    with pytest.raises(Interrupted):
        run_training(config, tmp_path / "cut", reporter=InterruptAfterTwo(quiet=True))
    run_training(config, tmp_path / "cut", resume=True, reporter=Reporter(quiet=True))
    first, second = (load_checkpoint(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_thermal_values_are_scaled_as_those_of_labelled_pairs(scenes: Path, tmp_path: Path) -> None:
    raw = np.linspace(7000, 9000, 60).astype(np.uint16)[None].repeat(40, 0)
    (tmp_path / "thermal").mkdir()
    Image.fromarray(raw).save(tmp_path / "thermal" / "a.png")
    (tmp_path / "rgb").mkdir()
    Image.new("RGB", (60, 40), "red").save(tmp_path / "rgb" / "a.png")
    split = open_split("mfnet", scenes, "train")
    unlabelled = open_unlabelled(str(tmp_path), split)
    dataset = SemiDataset(
        split,
        unlabelled,
        size=(40, 60),
        augment=AugmentConfig(flip=0, scale=(1, 1)),
        thermal_scale=(6000, 10000),
    )
    seen = dataset.unlabelled.read(0).thermal
    assert seen == pytest.approx((raw.astype(np.float32) - 6000) / 4000, abs=1e-5)


def _described(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "dataset.yaml").write_text(f"names: [a, b]\n{text}")
    return root


def test_a_folder_of_pairs_obeys_its_description(scenes: Path, tmp_path: Path) -> None:
    """False colours, channels and pages are read as in a data set, whatever the labelled pairs are."""
    split = open_split("mfnet", scenes, "train")
    rng = np.random.default_rng(0)
    heat = rng.integers(0, 256, (40, 60), dtype=np.uint8)
    colour = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)

    def read(root: Path, **settings: Any) -> Any:
        augment = AugmentConfig(flip=0, scale=(1, 1))
        found = open_unlabelled(str(root), split)
        return SemiDataset(split, found, size=(40, 60), augment=augment, **settings).unlabelled.read(0)

    root = _described(tmp_path / "colours", "thermal_palette: bar.txt\n")
    (root / "bar.txt").write_text("0 0 255\n255 0 0\n")  # from blue to red
    mapped = np.stack([heat, np.zeros_like(heat), 255 - heat], axis=-1)
    for folder, image in (("rgb", colour), ("thermal", mapped)):
        (root / folder).mkdir()
        Image.fromarray(image).save(root / folder / "a.png")
    assert np.array_equal(read(root).thermal, heat.astype(np.float32) / 255)
    with pytest.raises(InputError, match="its false colours are relative values, but this run has a range"):
        read(root, thermal_scale=(0.0, 200.0))

    root = _described(tmp_path / "bands", "channels: {rgb: [3, 2, 1], thermal: 5}\n")
    (root / "rgbt").mkdir()
    np.save(root / "rgbt" / "a.npy", np.dstack([colour[..., ::-1], heat // 2, heat]))
    found = read(root)
    assert np.array_equal(found.rgb, colour)
    assert np.array_equal(found.thermal, heat.astype(np.float32) / 255)

    root = _described(tmp_path / "pages", "page: {thermal: 2}\nthermal_scale: [0, 510]\n")
    for folder in ("rgb", "thermal"):
        (root / folder).mkdir()
    Image.fromarray(colour).save(root / "rgb" / "a.png")
    pages = [Image.fromarray(heat // 2), Image.fromarray(heat)]
    pages[0].save(root / "thermal" / "a.tif", save_all=True, append_images=pages[1:])
    assert np.allclose(read(root).thermal, heat.astype(np.float32) / 510, atol=1e-6)


def test_another_teacher_does_not_finish_a_run(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = open_split("mfnet", scenes, "train").classes
    efnet.create_model("mfnet", classes=classes).save_pretrained(tmp_path / "teacher")
    words = ("--epochs", "1", "--teacher", str(tmp_path / "teacher"))
    train(scenes, tmp_path / "run", *words)
    again = ["train", "--out", str(tmp_path / "run"), "--resume", "--epochs", "2", "--quiet"]
    torch.manual_seed(9)
    efnet.create_model("mfnet", classes=classes).save_pretrained(tmp_path / "teacher")
    assert main(again) == 2
    assert "the teacher is not what this run began with" in capsys.readouterr().err


def test_faults_before_training(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "more", ["a", "b"])
    start = ["train", "--root", str(scenes), "--out", str(tmp_path / "run"), *COMMON, "--epochs", "1"]
    more = ["--unlabelled", str(tmp_path / "more")]
    assert main([*start, *more]) == 2
    assert "--ema.decay" in capsys.readouterr().err
    (tmp_path / "more" / "thermal" / "b.png").unlink()
    assert main([*start, *more, "--ema.decay", "0.9"]) == 2
    assert str(tmp_path / "more" / "thermal" / "b.png") in capsys.readouterr().err
    assert main([*start, "--teacher", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main([*start, "--teach.confidence", "2"]) == 2
    assert "teach.confidence" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
