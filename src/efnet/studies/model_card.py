"""The model card of a run, and its publication on the Hugging Face hub.

A card states figures with intervals and the protocol, the data and the initial weights with their licences,
limits, and how to use the network. Nothing is published unless the licences are stated.
"""

from __future__ import annotations

import copy
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCardData

from efnet import __version__
from efnet.core.errors import InputError
from efnet.evaluation import report as reports
from efnet.evaluation.intervals import Report, read_report
from efnet.models.base import CONFIG_FILE, TRAINING_FACTS, WEIGHTS_FILE, SegmentationModel
from efnet.models.checkpoint import find_checkpoint, read_network
from efnet.reporting.tables import markdown_table, percent
from efnet.training.run_folder import RunFolder

CARD_FILE = "README.md"
UNSTATED = "not stated"
PUBLISHED = (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE)
"""Files of a repository."""

_LONGEST_NAME = 96  # the hub's limit

_EVALUATION = "evaluation.json"  # an experiment leaves it in a run folder


@dataclass(frozen=True)
class Terms:
    """Licences, as the publisher states them.

    Raises:
        InputError: `licence` other without a name.
    """

    licence: str | None = None  # of the weights: an identifier of the hub such as apache-2.0, or other
    licence_name: str | None = None  # with `licence` other
    licence_link: str | None = None
    data_licence: str | None = None  # of the training data, in words

    def __post_init__(self) -> None:
        if self.licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.licence):
            raise InputError(
                f"`licence` {self.licence}: give an identifier of the hub, such as mit, apache-2.0, "
                "cc-by-nc-4.0 or other"
            )
        if self.licence == "other" and not self.licence_name:
            raise InputError("`licence` other: name it with `licence_name`")

    def require(self) -> None:
        """Raise InputError unless the licences of weights and data are stated."""
        if self.licence is None:
            raise InputError("nothing was published: state the licence of the weights with `licence`")
        if not self.data_licence:
            raise InputError(
                "nothing was published: state the licence of the training data with `data_licence`, or that "
                "it has none"
            )


@dataclass(frozen=True)
class Published:
    """A network with all that its card states."""

    folder: Path  # the checkpoint
    network: SegmentationModel
    facts: dict[str, Any]  # run.json; empty for a checkpoint by itself
    reports: tuple[Report, ...]

    @classmethod
    def read(cls, run: str | Path, given: Sequence[str | Path] = ()) -> Published:
        """Read a run or checkpoint folder and reports of `efnet evaluate`.

        Without reports, the evaluation that an experiment left in the run folder is taken. Raises InputError:
        no checkpoint, or a file that is not a report of this network's classes.
        """
        folder = find_checkpoint(run)
        network = read_network(folder)
        paths = [Path(path) for path in given]
        stored = Path(run).expanduser() / _EVALUATION
        if not paths and stored.is_file():
            paths = [stored]
        found = []
        for path in paths:
            report = read_report(path)
            if tuple(report["iou"]) != network.classes.names:
                raise InputError(f"{path}: is a report of other classes than those of {network.name}")
            try:
                _table(report)
                model = report["protocol"].get("model")
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}: a damaged report ({error!r}); evaluate again") from error
            if model not in (None, network.name):
                raise InputError(f"{path}: is a report of {model}, not of {network.name}")
            found.append(report)
        runs = folder if folder.name != "best" else folder.parent
        return cls(folder, network, RunFolder(runs).read_facts(), tuple(found))

    def initial_weights(self) -> tuple[str, str] | None:
        """Return source and licence of the weights that training started from; None: fresh or unknown.

        A path of the training machine is left out.
        """
        text = self.facts.get("init")
        if not text:
            return None
        source, _, rest = str(text).partition(": ")
        licence = re.match(r"licence ([^;]+);", rest)
        return Path(source.split(" (")[0]).name, licence[1] if licence else UNSTATED


def write_card(published: Published, terms: Terms, name: str | None = None) -> str:
    """Return the model card in Markdown, with the hub's metadata. `name` is its title and repository."""
    network = published.network
    title = name or network.name
    data = ModelCardData(
        library_name="efnet",
        pipeline_tag="image-segmentation",
        license=terms.licence,
        license_name=terms.licence_name,
        license_link=terms.licence_link,
        tags=[network.architecture, "rgb-thermal", "semantic-segmentation"],
        model_name=title.rpartition("/")[2],
        eval_results=[_result(report) for report in published.reports if report["miou"] is not None] or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {title.rpartition('/')[2]}",
        _introduction(network),
        f"## Use\n\n{_usage(network, title)}",
        f"## Figures\n\n{_figures(published, title)}",
        f"## Data and licences\n\n{_licences(published, terms)}",
    ]
    facts = _training(published)
    if facts:
        parts.append(f"## Training\n\n{facts}")
    parts.append(f"## Limits\n\n{_limits(published)}")
    return "\n\n".join(parts) + "\n"


def _result(report: Report) -> EvalResult:
    protocol = report["protocol"]
    dataset = protocol.get("dataset") or "unnamed"
    return EvalResult(
        task_type="image-segmentation",
        dataset_type=dataset,
        dataset_name=f"{dataset} {protocol.get('split') or ''}".strip(),
        dataset_split=protocol.get("split"),
        metric_type="mean_iou",
        metric_name=f"mIoU, protocol {protocol['name']}, {report['images']} pairs",
        metric_value=round(100 * report["miou"], 2),
    )


def _introduction(network: SegmentationModel) -> str:
    size = network.input.size
    parameters = sum(parameter.numel() for parameter in network.parameters())
    seen = {"rgbt": "pairs of a colour and a thermal image", "rgb": "colour images"}
    return (
        f"`{network.name}` ({network.architecture}, {parameters / 1e6:.1f} M parameters) segments "
        f"{seen.get(network.modality, 'thermal images')} into {len(network.classes)} classes: "
        f"{', '.join(network.classes.names)}. Input: {f'{size[0]}x{size[1]}' if size else 'any size'}. "
        f"Written by efnet {__version__}."
    )


def _usage(network: SegmentationModel, title: str) -> str:
    given = {"rgbt": '"rgb.png", "thermal.png"', "rgb": '"rgb.png"', "thermal": 'None, "thermal.png"'}
    name = title if "/" in title else "this folder or repository"
    return (
        "```python\nimport efnet\n\n"
        f'predictor = efnet.Predictor.from_pretrained("{name}")\n'
        f"prediction = predictor({given[network.modality]}, probabilities=True)\n"
        'prediction.color().save("classes.png")\n```'
    )


def _figures(published: Published, title: str) -> str:
    if not published.reports:
        return "None were given with this card."
    parts = []
    for report in published.reports:
        shown = copy.deepcopy(report)
        if shown["protocol"].get("checkpoint"):
            shown["protocol"]["checkpoint"] = title  # not a path of the training machine
        parts.append(_table(shown))
    return "\n\n".join(parts)


def _table(report: Report) -> str:
    """The table of a report with its lines, and by group what faults of the cameras leave of mIoU."""
    text = reports.markdown(report).strip()
    if "robustness" in report:
        groups = report["robustness"]["groups"]
        rows = [[name, percent(value["miou"]), percent(value["retained"])] for name, value in groups.items()]
        text += "\n\n" + "\n".join(markdown_table(["faults of the cameras", "mIoU", "% of clean"], rows))
    return text


def _licences(published: Published, terms: Terms) -> str:
    stated = terms.licence_name or terms.licence or UNSTATED
    link = f" ({terms.licence_link})" if terms.licence_link else ""
    trained = published.network.training_summary
    rows = [["these weights", "", f"{stated}{link}"]]
    dataset = trained.get("dataset")
    pairs = f"{trained['train_pairs']} pairs of " if "train_pairs" in trained else ""
    rows.append(["training data", f"{pairs}{dataset or 'unknown'}", terms.data_licence or UNSTATED])
    start = published.initial_weights()
    if start is not None:
        rows.append(["initial weights", *start])
    rows += [
        [label, str(trained[key]), UNSTATED]
        for key, label in (("teacher", "teacher"), ("unlabelled", "pairs without masks"))
        if key in trained
    ]
    lines = markdown_table(
        ["", "what", "licence"], [[cell.replace("|", "\\|") for cell in row] for row in rows]
    )
    return "\n".join(lines)


def _training(published: Published) -> str:
    trained = published.network.training_summary
    rows = [[label, str(trained[key])] for key, label in TRAINING_FACTS if key in trained]
    if trained.get("selection_miou") is not None:
        rows.append(["mIoU on that split", percent(trained["selection_miou"])])
    for part, values in published.facts.get("data", {}).items():
        rows.append([f"{part} files", f"{values['pairs']} pairs, SHA-256 {values['sha256'][:16]}"])
    if published.network.temperature != 1.0:
        rows.append(["temperature of probabilities", f"{published.network.temperature:.4f}"])
    return "\n".join(markdown_table(["", "value"], rows)) if rows else ""


def _limits(published: Published) -> str:
    lines = [
        "- Figures hold for the named split and protocol. Other places, cameras and weather are not covered.",
        "- Intervals show what other images of the same kind would change. They do not cover another seed, "
        "and frames of one drive are not independent.",
    ]
    if not any("robustness" in report for report in published.reports):
        lines.append("- Faults of the cameras were not evaluated for this card.")
    if published.network.temperature == 1.0:
        lines.append("- Probabilities were not calibrated.")
    return "\n".join(lines)


def check_repository(name: str) -> str:
    """Return the name of a hub repository; raises InputError unless it is owner/name."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) or len(name) > _LONGEST_NAME:
        raise InputError(
            f"{name}: give the repository as owner/name, of letters, digits, hyphens, underscores and points"
        )
    return name


def stage(published: Published, card: str, folder: Path) -> list[Path]:
    """Write the files of a repository to a folder: weights, configuration and card; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        shutil.copyfile(published.folder / name, folder / name)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return [folder / name for name in PUBLISHED]


def push(
    published: Published,
    terms: Terms,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> str:
    """Publish a network with its card on the hub, in one commit; return the commit's address.

    The repository is made if it does not exist; other files in it stay. `token`: None is that of the user's
    login. `endpoint`: None is the hub. Raises InputError: a licence is not stated, a wrong name, or the hub
    refuses or cannot be reached.
    """
    terms.require()
    check_repository(repository)
    api = HfApi(endpoint=endpoint, token=token, library_name="efnet", library_version=__version__)
    with tempfile.TemporaryDirectory() as staging:
        stage(published, write_card(published, terms, repository), Path(staging))
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=staging,
                allow_patterns=list(PUBLISHED),
                commit_message=message or f"{published.network.name}, written by efnet {__version__}",
            )
        except Exception as error:  # of the client, and of the HTTP library that its version uses
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{repository}: not published ({type(error).__name__}: {first[:200]}); check the name, the "
                "token (hf auth login) and the network"
            ) from error
    return str(commit.commit_url)
