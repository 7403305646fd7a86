"""The static form: sorts in parts, means over cells, and files whose operators TensorRT's list has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.export import static
from efnet.export.static import check_static, clustered_otherwise, static_form, tensorrt_operators
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.efnet import EFNet
from efnet.ops import tokens
from efnet.ops.clustering import traceable
from efnet.ops.clustering.dpc_knn import Clusters, dpc_knn

SMALL = BackboneConfig((1, 1, 1, 1), (16, 32, 48, 64), (1, 2, 3, 4), (2, 2, 2, 2))


def smooth(height: int, width: int, channels: int) -> Tensor:
    coarse = torch.randn(1, channels, -(-height // 4), -(-width // 4))
    maps = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    values = maps.flatten(2).transpose(1, 2)
    return values + 0.3 * torch.randn_like(values)


def cells(height: int, width: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(float(height)), torch.arange(float(width)))[None] / 2


class Sorts(torch.nn.Module):
    def forward(self, floats: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
        falling = floats.sort(dim=1, descending=True, stable=True)
        return (*falling, *floats[:, :17].sort(dim=1, stable=True), *numbers.sort())


def test_a_sort_in_parts_is_stable_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of whole parts and of ragged ones; ties within a part and across parts."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(static, "TOP_K", 8)
    program = torch.export.export(Sorts(), (torch.rand(1, 40), torch.arange(27)))
    written = torch.onnx.export(
        program,
        (),
        None,
        opset_version=20,
        custom_translation_table=static.sorts_in_parts(),
        verbose=False,
        optimize=False,
    )
    session = runtime.InferenceSession(
        written.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    for kinds in (1, 3, 9, 2**23):
        for _ in range(10):
            floats = torch.randint(-kinds, kinds, (1, 40)).float()
            floats[0, int(torch.randint(40, ()))] = 2.0**120
            numbers = torch.randperm(27)
            found = session.run(None, dict(zip(names, (floats.numpy(), numbers.numpy()), strict=True)))
            for ours, theirs in zip(Sorts()(floats, numbers), found, strict=True):
                np.testing.assert_array_equal(theirs, ours.numpy())


@given(
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    divisor=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    count=st.integers(1, 150),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_means_are_those_of_the_matrix(
    size: tuple[int, int], divisor: tuple[int, int], count: int, seed: int
) -> None:
    torch.manual_seed(seed)
    map_size = tuple(-(-side // by) for side, by in zip(size, divisor, strict=True))
    total, count = size[0] * size[1], min(count, size[0] * size[1])
    token = torch.cat([torch.arange(count), torch.randint(count, (total - count,))])[torch.randperm(total)]
    shares = torch.zeros(count, map_size[0] * map_size[1])
    for place, one in enumerate(token.tolist()):
        row, column = place // size[1] * map_size[0] // size[0], place % size[1] * map_size[1] // size[1]
        shares[one, row * map_size[1] + column] += 1
    features, of_map = torch.randn(count, 3), torch.randn(shares.shape[1], 3)
    with pytest.MonkeyPatch.context() as patch, static_form():
        patch.setattr(tokens, "is_exporting", lambda: True)
        ways = tokens.TokenGrid(token[None], count, size).exchange(map_size)
        to_map, to_token = ways.to_map.mean(features), ways.to_token.mean(of_map)
    expected = (shares / shares.sum(0)).T @ features
    torch.testing.assert_close(to_map, expected, rtol=1e-5, atol=1e-6)
    expected = shares / shares.sum(1, keepdim=True) @ of_map
    torch.testing.assert_close(to_token, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("weight", "grid"), [(0.7, (40, 48)), (0.3, None), (0.0, None)])
def test_clusters_are_those_of_dpc_knn(weight: float, grid: tuple[int, int] | None) -> None:
    """Windows on a grid, tiles of loose tokens, and no positions; more tokens than one search takes."""
    features, positions = smooth(40, 48, 16), cells(40, 48)
    with static_form():
        found = dpc_knn(features, 480, 5, positions, weight, grid)
    expected = dpc_knn(features, 480, 5, positions, weight, grid)
    assert torch.equal(found.centers, expected.centers)
    assert torch.equal(found.assignment, expected.assignment)


@pytest.mark.parametrize("features", [smooth(40, 48, 16), torch.zeros(1, 1920, 16)])
def test_with_too_many_open_tokens_the_clusters_are_whole(
    features: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tokens may join another cluster than the nearest; each centre keeps its own."""
    monkeypatch.setattr(traceable, "_MOST", 3)
    with static_form():
        found = dpc_knn(features, 480, 5, cells(40, 48), 0.05, (40, 48))
    assert_whole(found, 480)


def assert_whole(clusters: Clusters, count: int) -> None:
    assert torch.equal(clusters.assignment[0, clusters.centers[0]], torch.arange(count))
    assert int(clusters.assignment.min()) == 0
    assert int(clusters.assignment.max()) == count - 1


def test_tokens_clustered_otherwise_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = EFNet(EFNetConfig(SMALL, num_classes=4)).eval()
    pairs = [(torch.rand(1, 3, 160, 192), torch.rand(1, 1, 160, 192))]
    tokens_of_all = 1920 + 480 + 120
    assert clustered_otherwise(network, pairs) == (0, tokens_of_all)
    monkeypatch.setattr(traceable, "_MOST", 1)
    for stage in network.token_stages:
        stage.dbtc.tau = 0.99  # positions prove next to nothing
    otherwise, total = clustered_otherwise(network, pairs)
    assert total == tokens_of_all
    assert 0 < otherwise < total
    assert clustered_otherwise(efnet.create_model("mfnet").eval(), pairs) == (0, 0)


class Cells(torch.nn.Module):
    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        size = maps.shape[2], maps.shape[3]
        found = dpc_knn(maps.flatten(2).transpose(1, 2), 480, 5, cells(*size), 0.7, size)
        return found.assignment, found.centers


def test_a_clustering_in_onnx_has_operators_of_the_list_alone(tmp_path, monkeypatch) -> None:
    """With a bound of TopK so low that every sort is one in parts; the same clusters in ONNX Runtime."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from efnet.export.formats import _simplify

    monkeypatch.setattr(static, "TOP_K", 300)
    monkeypatch.setattr(traceable, "_MOST", 200)
    maps = smooth(40, 48, 16).transpose(1, 2).unflatten(2, (40, 48)).contiguous()
    with torch.no_grad(), static_form():
        program = torch.export.export(Cells(), (maps,))
    table = static.sorts_in_parts()
    written = torch.onnx.export(
        program, (), None, opset_version=20, custom_translation_table=table, verbose=False, optimize=False
    )
    _simplify(written.model)
    written.save(str(tmp_path / "cells.onnx"))
    facts = {**tensorrt_operators(), "top_k_below": 301}
    monkeypatch.setattr(static, "tensorrt_operators", lambda: facts)
    check_static(tmp_path / "cells.onnx", tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "cells.onnx").graph
    assert sum(node.op_type == "TopK" for node in graph.node) > 4
    session = runtime.InferenceSession(tmp_path / "cells.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: maps.numpy()})
    for ours, theirs in zip(Cells()(maps), found, strict=True):
        assert torch.equal(ours, torch.from_numpy(theirs))


def test_operators_that_tensorrt_does_not_take_are_named(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    nodes = [
        node("Unique", ["x"], ["u"]),
        node("NonZero", ["x"], ["n"]),
        node("TopK", ["x", "most"], ["v", "i"]),
        node("TopK", ["x", "n"], ["w", "j"]),
    ]
    most = onnx.numpy_helper.from_array(np.array([3840]), "most")
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [4000])], [value("v", 1, [3840])], [most])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "made.onnx")
    expected = (
        r"a.onnx: not written.* needs NonZero, TopK of 3840, TopK of a number that data decide, Unique; "
    )
    with pytest.raises(InputError, match=expected):
        check_static(tmp_path / "made.onnx", tmp_path / "a.onnx")


def test_the_facts_are_whole() -> None:
    facts = tensorrt_operators()
    operators = facts["operators"]
    assert len(set(operators)) == len(operators) > 150
    assert all(isinstance(name, str) for name in operators)
    assert set(facts["data_dependent"]) < set(operators)
    assert facts["top_k_below"] - 1 == static.TOP_K


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.onnx", "--static"], "--static is a form of --format onnx for one --size HxW"),
        (
            ["--out", "a.onnx", "--static", "--size", "64x96", "--precision", "int8"],
            "in --precision 32 or 16",
        ),
        (["--out", "a.pt2", "--format", "torch", "--static", "--size", "64x96"], "form of --format onnx"),
        (["--out", "a.onnx", "--no-check", "--check-rgbt", "pair.png"], "of no use without a check"),
    ],
)
def test_options_that_do_not_fit(tmp_path, monkeypatch, capsys, options: list[str], message: str) -> None:
    pytest.importorskip("onnxscript")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGBA", (64, 96)).save("pair.png")
    assert main(["export", *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pair.png"]


def test_a_file_that_was_not_checked_says_so(tmp_path, capsys) -> None:
    efnet.create_model("mfnet", num_classes=4).save_pretrained(tmp_path / "run")
    out = tmp_path / "street.pt2"
    words = ["--checkpoint", str(tmp_path / "run"), "--format", "torch", "--size", "32x48", "--no-check"]
    assert main(["export", *words, "--out", str(out)]) == 0
    assert "not checked: the file was not compared with the checkpoint" in capsys.readouterr().out
    assert json.loads(Path(f"{out}.json").read_text())["check"] is None
    exported = efnet.export(tmp_path / "run", out=out, size=(32, 48), check=False)
    assert exported.agreement is None


@pytest.mark.slow
def test_a_network_as_typed(tmp_path: Path, capsys) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(3)
    EFNet(EFNetConfig(SMALL, num_classes=4), "small", ClassSet.generic(4)).save_pretrained(tmp_path / "run")
    out = tmp_path / "small.onnx"
    words = ["--checkpoint", str(tmp_path / "run"), "--size", "64x104", "--static", "--out", str(out)]
    assert main(["export", *words]) == 0
    printed = capsys.readouterr().out
    assert "operators of TensorRT 10.15's list alone" in printed
    assert re.search(r" \d of 1092 tokens are clustered otherwise by the static form", printed)
    report = json.loads(Path(f"{out}.json").read_text())
    assert report["check"]["agreement"] >= 0.999
    used = {node.op_type for node in onnx.load(out).graph.node}
    assert {"TopK", "MatMul", "ScatterElements"} <= used
    assert not used & {"Loop", "If", "NonZero", "Scan"}
    assert used <= set(tensorrt_operators()["operators"])
