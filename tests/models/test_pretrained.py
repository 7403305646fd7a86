"""Where `--init` finds weights: packages, files, folders, the hub, https addresses; PVTv2 by both names."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

import efnet
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models import SegmentationModel
from efnet.models.efficientnet import EarlyBlocks, LateBlocks
from efnet.models.pretrained import initialise
from efnet.training.config import NetworkConfig
from efnet.training.step import build_network

CARD = "---\nlicense: apache-2.0\nlibrary_name: timm\n---\n# weights\n"


def lite_state() -> dict[str, Tensor]:
    """EfficientNet-Lite0's weights by the names of their authors."""
    torch.manual_seed(1)
    return {
        "_" + re.sub(r"\.(?=[a-z]\w*\.)", "._", name): value
        for part in (EarlyBlocks("lite0"), LateBlocks("lite0"))
        for name, value in part.state_dict().items()
    }


def pvt_state(preset: str = "efnet_light") -> dict[str, Tensor]:
    """PVTv2's weights of a preset's size by the names of their authors."""
    torch.manual_seed(2)
    state = {}
    for name, value in efnet.create_model(preset).state_dict().items():
        theirs = None
        if match := re.fullmatch(r"rgb\.(patch_embed|norm)\.(.+)", name):
            theirs = f"{match[1]}1.{match[2]}"
        elif match := re.fullmatch(r"rgb\.blocks\.(.+)", name):
            theirs = f"block1.{match[1]}"
        elif match := re.fullmatch(r"token_stages\.(\d)\.dbtc\.(conv|norm)\.(weight|bias)", name):
            theirs = f"patch_embed{int(match[1]) + 2}.{'proj' if match[2] == 'conv' else 'norm'}.{match[3]}"
        elif match := re.fullmatch(r"token_stages\.(\d)\.(blocks|norm)\.(.+)", name):
            theirs = f"{'block' if match[2] == 'blocks' else 'norm'}{int(match[1]) + 2}.{match[3]}"
        if theirs is not None and "skip" not in theirs:
            state[theirs.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")] = torch.randn_like(value)
    return state | {"head.weight": torch.zeros(1000, 512), "head.bias": torch.zeros(1000)}


def as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, value in state.items():
        ours = name.replace("dwconv.dwconv", "dwconv").replace("patch_embed1", "patch_embed")
        ours = re.sub(r"^patch_embed([234])", lambda m: f"stages.{int(m[1]) - 1}.downsample", ours)
        ours = re.sub(r"^block(\d)", lambda m: f"stages.{int(m[1]) - 1}.blocks", ours)
        named[re.sub(r"^norm(\d)", lambda m: f"stages.{int(m[1]) - 1}.norm", ours)] = value
    return named


@pytest.mark.parametrize("names", ["the authors'", "timm's"])
def test_pvt_fills_efnet(tmp_path: Path, names: str) -> None:
    """Every block; token skips are zero, so a fresh token stage computes PVTv2's convolutions."""
    state = pvt_state()
    save_file(state if names == "the authors'" else as_timm(state), tmp_path / "model.safetensors")
    model = efnet.create_model("efnet_light", 9)
    report = initialise(model, str(tmp_path / "model.safetensors"))
    own = model.state_dict()
    assert set(report.left_over) == {"head.weight", "head.bias"}
    for ours, theirs in (
        ("rgb.patch_embed.proj.weight", "patch_embed1.proj.weight"),
        ("thermal.blocks.1.mlp.dwconv.weight", "block1.1.mlp.dwconv.dwconv.weight"),
        ("token_stages.0.dbtc.conv.weight", "patch_embed2.proj.weight"),
        ("token_stages.2.dbtc.norm.bias", "patch_embed4.norm.bias"),
        ("token_stages.1.blocks.0.attn.sr.weight", "block3.0.attn.sr.weight"),
        ("token_stages.2.blocks.1.mlp.dwconv.bias", "block4.1.mlp.dwconv.dwconv.bias"),
        ("token_stages.2.norm.weight", "norm4.weight"),
    ):
        assert torch.equal(own[ours], state[theirs]), ours
    skips = [value for name, value in own.items() if name.endswith("conv.skip.weight")]
    assert skips
    assert not any(value.any() for value in skips)
    parts = {
        re.sub(r"\d", "N", ".".join(name.split(".")[:4])) for name in report.fresh if "token_stages" in name
    }
    assert parts == {
        "token_stages.N.dbtc.conv",  # its skip
        "token_stages.N.dbtc.position",
        "token_stages.N.dbtc.score",
        "token_stages.N.dbtc.score_position",
        "token_stages.N.blocks.N",  # the skip of its depthwise convolution
    }


def test_pvt_of_another_size_is_refused(tmp_path: Path) -> None:
    save_file(as_timm(pvt_state()), tmp_path / "b1.safetensors")
    with pytest.raises(InputError, match="2-2-2-2 there, 3-4-6-3 here"):
        initialise(efnet.create_model("efnet_base"), str(tmp_path / "b1.safetensors"))


@pytest.fixture
def edge() -> SegmentationModel:
    return efnet.create_model("efnet_edge", 4)


def write_repository(folder: Path) -> Path:
    """A folder as a repository of timm's: its own config.json, a card, and weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "tf_efficientnet_lite0"}))
    (folder / "README.md").write_text(CARD)
    save_file(lite_state(), folder / "model.safetensors")
    return folder


def test_a_folder_with_its_licence(tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "timm" / "weights")
    network, report = build_network(NetworkConfig("efnet_edge", init=str(folder)), ClassSet.generic(4))
    assert report is not None
    assert report.licence == "apache-2.0"
    assert f"{folder}" in str(report)
    assert torch.equal(network.state_dict()["rgb.conv_stem.weight"], lite_state()["_conv_stem.weight"])


def test_a_file_states_no_licence(edge: SegmentationModel, tmp_path: Path) -> None:
    torch.save(lite_state(), tmp_path / "lite0.pth")
    report = initialise(edge, str(tmp_path / "lite0.pth"))
    assert "licence not stated" in str(report)


def test_a_checkpoint_of_ours(edge: SegmentationModel, tmp_path: Path) -> None:
    given = efnet.create_model("efnet_edge", 4)
    given.save_pretrained(tmp_path / "run")
    report = initialise(edge, str(tmp_path / "run"))
    assert report.licence is None
    assert torch.equal(
        edge.state_dict()["trunk.blocks.3.bn0.weight"], given.state_dict()["trunk.blocks.3.bn0.weight"]
    )
    with pytest.raises(InputError, match="cannot start mfnet"):
        initialise(efnet.create_model("mfnet"), str(tmp_path / "run"))


def serve_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client find its files in a folder, one below each `owner/name`."""

    def fetch(name: str, filename: str, **_: object) -> str:
        path = folder / name / filename
        if not (folder / name).is_dir():
            raise LocalEntryNotFoundError(f"the hub is out of reach, and {name} was not fetched before")
        if not path.is_file():
            raise EntryNotFoundError(f"no {filename} in {name}")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)


def test_names_on_the_hub(edge: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "timm/tf_efficientnet_lite0.in1k"
    folder = write_repository(tmp_path / name)
    serve_hub(tmp_path, monkeypatch)
    assert initialise(edge, name).licence == "apache-2.0"
    (folder / "model.safetensors").unlink()
    torch.save(lite_state(), folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in initialise(edge, name).source
    (folder / "README.md").unlink()
    assert initialise(edge, name).licence == "not stated"
    (folder / "config.json").unlink()
    assert initialise(edge, name).licence == "not stated"
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        initialise(edge, name)
    with pytest.raises(InputError, match="neither a file or folder here nor a repository"):
        initialise(edge, "nobody/nothing")


def test_our_own_repository_on_the_hub(
    edge: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    efnet.create_model("efnet_edge", 4).save_pretrained(tmp_path / "me" / "streets")
    serve_hub(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path / "me")
    assert initialise(edge, "me/streets").licence is None


def test_networks_without_a_package_say_so() -> None:
    with pytest.raises(InputError, match="no package of ImageNet weights is known for mfnet"):
        initialise(efnet.create_model("mfnet"), "imagenet")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An https server of this machine with a certificate that the client trusts, and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    real = torch.hub.download_url_to_file

    def over_plain_http(url: str, *args: object, **options: object) -> None:
        """The transport alone is replaced: no certificate of this machine would be trusted."""
        assert url.startswith("https://")
        real(url.replace("https://", "http://"), *args, **options)

    monkeypatch.setattr(torch.hub, "download_url_to_file", over_plain_http)
    yield f"https://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_https_addresses_with_a_sum(edge: SegmentationModel, address: tuple[str, Path]) -> None:
    url, folder = address
    path = folder / "lite0.pth"
    torch.save(lite_state(), path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    report = initialise(edge, f"{url}/lite0.pth#sha256={right}")
    assert "lite0.pth" in report.source
    path.unlink()
    again = initialise(edge, f"{url}/lite0.pth#sha256={right.upper()}")
    assert again.loaded == report.loaded, "the second time it comes from the cache"
    with pytest.raises(InputError, match="cannot be fetched"):
        initialise(edge, f"{url}/other.pth#sha256={'1' * 64}")
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="it was changed"):
        initialise(edge, f"{url}/lite0.pth#sha256={'0' * 64}")


def test_a_folder_of_weights_alone(edge: SegmentationModel, tmp_path: Path) -> None:
    torch.save(lite_state(), tmp_path / "pytorch_model.bin")
    (tmp_path / "README.md").write_text("---\nlicense: [a\n---\n")
    assert initialise(edge, str(tmp_path)).licence == "not stated"
    (tmp_path / "config.json").write_text(json.dumps({"architecture": ["x"]}))
    assert initialise(edge, str(tmp_path)).licence == "not stated"


@pytest.mark.parametrize("place", ["host/a b.pth", "host:x/w.pth", "[x/w.pth"])
def test_addresses_that_are_none(edge: SegmentationModel, place: str) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched|not an address"):
        initialise(edge, f"https://{place}#sha256={'0' * 64}")


@pytest.mark.parametrize(
    "source",
    [
        "http://host/w.pth#sha256=" + "0" * 64,
        "https://host/w.pth",
        "https://host/w.pth#sha256=12",
        "https://host/w.pth#md5=1",
    ],
)
def test_addresses_without_protection_are_refused(edge: SegmentationModel, source: str) -> None:
    with pytest.raises(InputError, match="sha256="):
        initialise(edge, source)
