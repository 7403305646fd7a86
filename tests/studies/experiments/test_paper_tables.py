"""The tables and configurations in the package, against the paper and against `efnet train`."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from jsonargparse import ArgumentParser

import efnet
from efnet.cli.main import main
from efnet.cli.train import add_arguments, parse
from efnet.core.errors import InputError
from efnet.studies.experiments.paper_tables import PaperFigures, get_table, list_tables
from efnet.studies.leaderboard import published_table
from efnet.training.config import NetworkConfig, from_parsed, get_recipe, read_config, to_values

ROWS = [(table.name, row) for table in list_tables() for row in table.rows]
OF_THE_PAPER = [(table.name, row) for table in list_tables() if table.place for row in table.rows]

PAPER = {
    "table1": {
        "rtfnet152": (53.2, None, 337.1, 337.0),
        "rsfnet": (56.2, None, 73.63, 98.8),
        "sfafma": (55.5, None, 156, 354),
        "gmnet": (57.3, None, 149.8, None),
        "lasnet": (54.9, None, 139.9, 233.8),
        "sgfnet": (57.6, None, 125.3, 143.7),
        "mdrnet": (56.8, None, 64.6, 194.3),
        "efnet": (57.9, None, 29.5, 36.6),
    },
    "table2": {
        "rtfnet152": (60.6, None, 337.1, None),
        "pstnet": (68.4, None, 105.8, None),
        "gmnet": (84.1, None, 149.8, None),
        "egfnet": (78.5, None, 201.3, None),
        "lasnet": (84.4, None, 93.5, None),
        "mdrnet": (74.6, None, 64.6, None),
        "mmsmcnet": (79.8, None, 98.6, None),
        "sgfnet": (82.8, None, 125.6, None),
        "efnet": (85.6, None, 29.5, None),
    },
    "table3": {
        "rtfnet152": (42.7, None, 337.1, None),
        "egfnet": (47.3, None, 201.3, None),
        "lasnet": (53.4, None, 139.9, None),
        "gmnet": (49.2, None, 149.8, None),
        "sfafma": (42.7, None, 156, None),
        "eaefnet50": (53.5, None, 77.93, None),
        "efnet": (55.2, None, 29.5, None),
    },
    "table4": {
        "cat": (54.0, None, 29.56, None),
        "add": (56.7, None, 29.46, None),
        "mif": (57.9, None, 29.54, None),
    },
    "table5": {
        "none": (55.9, None, 29.54, None),
        "pe": (57.0, None, 29.55, None),
        "pce": (57.9, None, 29.54, None),
    },
    "table6": {
        "falling": (56.1, 65.7, None, None),
        "even": (56.9, 71.2, None, None),
        "rising": (57.7, 66.9, None, None),
    },
    "table7": {
        "deeplab": (57.1, None, 33.28, None),
        "mlp": (56.3, None, 30.06, None),
        "mfad": (57.9, None, 29.54, None),
    },
    "baseline": {
        "mfnet": (54.5, None, None, None),
        "pst900": (80.4, None, None, None),
        "fmb": (51.6, None, None, None),
    },
}
"""mIoU, mAcc, parameters and operations as printed."""

OPTIONS = {
    "cat": {"fusion": "cat"},
    "add": {"fusion": "add"},
    "none": {"position": "none"},
    "pe": {"position": "pe"},
    "falling": {"tau": (1.0, 0.7, 0.3)},
    "even": {"tau": (0.5, 0.5, 0.5)},
    "deeplab": {"decoder": "deeplab"},
    "mlp": {"decoder": "mlp"},
}
"""What a row changes of the full model."""


def test_figures_are_the_paper_s() -> None:
    ours = {
        table.name: {
            row.name: (row.paper.miou, row.paper.macc, row.paper.parameters, row.paper.operations)
            for row in table.rows
            if not row.beyond
        }
        for table in list_tables()
        if table.place is not None
    }
    assert ours == PAPER
    studies = [table for table in list_tables() if table.place is None]
    assert [table.name for table in studies] == ["study", "readings", "rivals", "recipes"]
    assert all(row.paper == PaperFigures() for table in studies for row in table.rows)


def test_published_rows_agree() -> None:
    for table, dataset in (("table1", "mfnet"), ("table2", "pst900"), ("table3", "fmb")):
        for row in get_table(table).rows:
            published = published_table(dataset).row(row.label)
            assert row.load().data.dataset == dataset
            assert (published.miou, published.parameters) == (row.paper.miou, row.paper.parameters)
            assert published.operations == row.paper.operations
            assert published.network == (None if row.name == "efnet" else row.load().network.name)
            assert (published.seen == "table") == (not row.beyond)


def test_every_published_row_whose_network_exists_is_a_row() -> None:
    """Those without public code stay published figures: ABMDRNet and MTANet."""
    for table, dataset in (("table1", "mfnet"), ("table2", "pst900"), ("table3", "fmb")):
        labels = {row.label for row in get_table(table).rows}
        with_network = {row.method for row in published_table(dataset).results if row.network}
        assert labels == with_network | {"EFNet"}
        in_the_paper = {row.method for row in published_table(dataset).results if row.seen == "table"}
        assert in_the_paper - labels <= {"ABMDRNet", "MTANet"}


@pytest.mark.parametrize(("table", "row"), OF_THE_PAPER, ids=lambda value: getattr(value, "name", value))
def test_a_row_changes_what_it_names(table: str, row) -> None:
    baseline = {"fusion": "add", "position": "none", "decoder": "mlp"}
    assert row.network_options() == (baseline if table == "baseline" else OPTIONS.get(row.name, {}))
    config = row.load()
    name = row.name if row.name in efnet.list_models() and table != "baseline" else "efnet_light"
    assert (config.recipe, config.network.name, config.data.size) == ("paper", name, (480, 640))
    assert (config.optimizer.lr, config.data.batch_size, config.schedule.epochs) == (6e-5, 2, 300)


STUDY = {
    "full": {},
    "baseline": {"fusion": "add", "position": "none", "decoder": "mlp"},
    "falling": {"tau": (1.0, 0.7, 0.3)},
    "even": {"tau": (0.5, 0.5, 0.5)},
    "pe": {"position": "pe"},
    "none": {"position": "none"},
    "pool": {"merging": "pool"},
    "rgb": {"modality": "rgb"},
    "thermal": {"modality": "thermal"},
}


def test_rows_of_the_study_differ_in_what_they_name_alone() -> None:
    rows = {row.name: row for row in get_table("study").rows}
    assert {name: row.network_options() for name, row in rows.items()} == STUDY
    rest = {str({**to_values(row.load()), "network": None}) for row in rows.values()}
    assert len(rest) == 1
    assert {row.load().network.name for row in rows.values()} == {"efnet_light"}


def test_rows_of_the_readings_differ_in_one_option() -> None:
    rows = {row.name: row for row in get_table("readings").rows}
    assert {name: row.network_options() for name, row in rows.items()} == {
        "full": {},
        "balanced": {"distance": "balanced"},
        "others": {"density": "others"},
        "image": {"unit": "image"},
        "bilinear": {"enlargement": "bilinear"},
    }
    assert len({str({**to_values(row.load()), "network": None}) for row in rows.values()}) == 1


def test_rows_of_the_rivals_differ_in_the_network_alone() -> None:
    rows = {row.name: row.load() for row in get_table("rivals").rows}
    study = {str({**to_values(config), "network": None}) for config in rows.values()}
    assert study == {str({**to_values(get_table("study").rows[0].load()), "network": None})}
    networks = {name: dataclasses.replace(row.network, decoder=None) for name, row in rows.items()}
    alone = {name: networks.pop(name) for name in ("rgb", "thermal")}
    default = NetworkConfig()
    pretrained = networks.pop("efnet_edge_imagenet")
    assert pretrained == dataclasses.replace(default, name="efnet_edge", init="imagenet")
    assert alone == {name: dataclasses.replace(default, modality=name) for name in alone}
    assert networks == {name: dataclasses.replace(default, name=name) for name in networks}
    # Networks that are no rows: the largest ones, and sisters of those that are.
    built_in = {name for name in efnet.list_models() if not name.endswith("of_tests")}  # others register some
    assert built_in - set(networks) == {
        *("efnet_edge_m", "efnet_large", "eaefnet_pst900", "tuni_v1_s"),
        "mmsmcnet",  # takes 480x640 alone
    }


def test_train_reads_the_same_from_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    rows = list({row.config: row for _, row in ROWS}.values())
    for row in rows:
        assert from_parsed(parse(parser, ["--config", str(row.path), "--out", "unused"])) == row.load()
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config", str(rows[0].path), "--out", "unused", "--print_config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    expected = to_values(rows[0].load())
    assert {key: printed[key] for key in expected} == expected


def test_rows_of_one_network_share_a_configuration() -> None:
    full = [(table, row.name) for table, row in ROWS if row.config == "mfnet"]
    assert full == [
        *[("table1", "efnet"), ("table4", "mif"), ("table5", "pce"), ("table6", "rising"), ("table7", "mfad")]
    ]
    assert len({row.config for _, row in ROWS}) == len({str(to_values(row.load())) for _, row in ROWS}) == 103


def test_wrong_names_and_values() -> None:
    with pytest.raises(InputError, match="no table 'table9'; there are table1"):
        get_table("table9")
    with pytest.raises(InputError, match="`rows` sum: table4 has the rows cat, add, mif"):
        get_table("table4").choose(["add", "sum"])
    assert [row.name for row in get_table("table4").choose(["mif", "cat"])] == ["cat", "mif"]
    with pytest.raises(InputError, match=r"mine\.yaml: .*fusin"):
        read_config({"network": {"fusin": "add"}}, "mine.yaml")
    with pytest.raises(InputError, match=r"mine\.yaml: "):
        read_config({"network": {"fusion": "sum"}}, "mine.yaml")
    with pytest.raises(InputError, match="no recipe 'secret'"):
        read_config({"recipe": "secret"}, "mine.yaml")


def test_a_file_changes_its_recipe_key_by_key() -> None:
    config = read_config({"recipe": "scratch", "optimizer": {"lr": 0.1}}, "mine.yaml")
    assert (config.optimizer.lr, config.optimizer.clip, config.recipe) == (0.1, 5.0, "scratch")


RECIPES = {
    "base": {},
    "dice": {"loss": {"dice": 1.0}},
    "lovasz": {"loss": {"lovasz": 1.0}},
    "enet": {"loss": {"class_weights": "enet"}},
    "median": {"loss": {"class_weights": "median"}},
    "ohem": {"loss": {"ohem": 0.7}},
    "smoothing": {"loss": {"label_smoothing": 0.1}},
    "ema": {"ema": {"decay": 0.999}},
    "rare_crop": {"augment": {"rare_crop": 0.5}},
    "long_scale": {"augment": {"scale": [0.5, 2.0]}},
    "modality_dropout": {"augment": {"drop_rgb": 0.1, "drop_thermal": 0.1}},
    "thermal_gain": {"augment": {"thermal_gain": 0.2, "thermal_offset": 0.1}},
}
"""What a row adds to recipe `scratch`."""


def test_rows_of_the_recipes_differ_in_one_ingredient() -> None:
    rows = {row.name: to_values(row.load()) for row in get_table("recipes").rows}
    base = rows["base"]
    for name, change in RECIPES.items():
        (part, values), *_ = [*change.items(), ("loss", {})]
        assert rows.pop(name) == base | {part: base[part] | values}
    (strong,) = rows.values()
    recipe = to_values(get_recipe("strong-scratch"))
    same = ("loss", "ema", "augment", "optimizer")
    assert {part: strong[part] for part in same} == {part: recipe[part] for part in same}
    assert {part: strong[part] for part in ("data", "network", "schedule", "validation")} == {
        part: base[part] for part in ("data", "network", "schedule", "validation")
    }
