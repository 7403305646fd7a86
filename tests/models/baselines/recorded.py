"""Which features of the authors' code are recorded, and where our networks have the same maps."""

from __future__ import annotations

import numpy as np
from feature_cases import Case


def same(*names: str, prefix: str = "") -> dict[str, str]:
    """Maps that are recorded under our module's name, with underscores for dots."""
    return {name.replace(".", "_"): f"{prefix}{name}" for name in names}


def gates(name: str, noise: np.ndarray) -> np.ndarray | None:
    """EAEFNet's factors, which the general rule would set near zero."""
    if not name.endswith("T_c"):
        return None
    width = (64, 256, 512, 1024, 2048)[int(name.split("idam_")[1][0])]
    return width * (1 + 0.1 * noise)


RTFNET = {
    "stem_sum": "fuse_level@0#0",
    "stem_thermal": "fuse_level@0#1",
    **{f"sum{level}": f"fuse_level@{level}#0" for level in range(1, 5)},
    "thermal4": "encoder_thermal.layer4",
    "deconv1_block_a": "deconv1.0",
    "deconv5_block_a": "deconv5.0",
    "deconv5_main": "deconv5.1.bn3",
    "deconv5_shortcut": "deconv5.1.upsample",
    **same("deconv1", "deconv3", "deconv4"),
}

EAEFNET = {
    "stem_rgb": "idam_0<#0",
    **{f"fused{level}": f"idam_{level}" for level in range(5)},
    **{f"fused{level}_rgb": f"idam_{level}#0" for level in range(5)},
    **{f"fused{level}_thermal": f"idam_{level}#1" for level in range(2)},
    "thermal_layer1": "encoder_thermal.layer1",
    "gcm_high4": "decoder.rfb4_1",
    "gcm_low1": "decoder.rfb1_2",
    "attention_logits": "decoder.agg1_splat",
    "agg1_out": "decoder.agg1",
    "before_agant1": "decoder.agant1<#0",
    "deconv1": "decoder.deconv1",
    "logits_high": "auxiliary:high",
    "logits_low": "auxiliary:low",
    "logits_sum": "auxiliary:logits",
}

PSTNET = {
    "rgb_logits": "rgb_net",
    "rgb_layer0": "rgb_net.layer0_1x1<#0",
    "rgb_layer2": "rgb_net.encoder.layer2",
    "rgb_layer4_1x1": "rgb_net.layer4_1x1",
    "rgb_conv_up3": "rgb_net.conv_up3",
    "rgb_conv_up2": "rgb_net.conv_up2",
    "rgb_conv_up0": "rgb_net.conv_up0",
    "rgb_conv_original_size1": "rgb_net.conv_original_size1",
    "rgb_conv_original_size2": "rgb_net.conv_original_size2",
    "stream2_input": "initial_block_enc<#0",
    **same("initial_block_enc"),
    "layers_enc_5": "layers_enc.5",
    "layers_enc_14": "layers_enc.14",
    "layers_dec_0": "layers_dec.0",
    "layers_dec_5": "layers_dec.5",
}

MIT = {
    **{f"norm{stage + 1}": f"encoder.stages.{stage}.norm" for stage in range(4)},
    "decoder_fused": "decoder.fuse",
}

PAIR = {
    "patch_embed1": "rgb.stages.0.patch_embed",
    "norm1": "rgb.stages.0.norm",
    "extra_block1_0": "thermal.stages.0.blocks.0",
    "extra_norm1": "thermal.stages.0.norm",
    "frm1_rgb": "FRMs.0#0",
    "frm1_thermal": "FRMs.0#1",
    "ffm1_cross_rgb": "FFMs.0.cross#0",
    "ffm1_cross_thermal": "FFMs.0.cross#1",
    **{f"ffm{stage + 1}": f"FFMs.{stage}" for stage in range(4)},
    "decoder_fused": "decoder.fuse",
}

CMNEXT = PAIR | {
    "extra_downsample1": "thermal.stages.0.norm",
    "extra_block1_0_attn": "thermal.stages.0.blocks.0.attn",
    "extra_norm1": "thermal.stages.0.last_norm",
    "extra_norm3": "thermal.stages.2.last_norm",
}

TUNI = {
    "stem_rgb": "encoder.downsample_layers.0",
    "stem_thermal": "encoder.downsample_layers_e.0",
    "stage2_block0_attn_rgb": "encoder.stages.1.0.attn#0",
    "stage2_block0_attn_thermal": "encoder.stages.1.0.attn#1",
    "stage1_block0_local_rx": "encoder.stages.0.0.attn.local_rx",
    "stage2_block0_local_rx": "encoder.stages.1.0.attn.local_rx",
    "decoder_fused": "decoder.fuse",
}


def tuni(model: str, folder: str, depths: tuple[int, ...], slow: bool = False) -> Case:
    """A stage's maps are the results of its last block."""
    stages = {
        f"stage{stage + 1}_{kind}": f"encoder.stages.{stage}.{depth - 1}#{index}"
        for stage, depth in enumerate(depths)
        for index, kind in enumerate(("rgb", "thermal"))
    }
    return Case(model, folder, TUNI | stages, special=scales, slow=slow)


def scales(name: str, noise: np.ndarray) -> np.ndarray | None:
    """TUNI's layer scales, behind whose 1e-6 the blocks would vanish."""
    return 1 + 0.1 * noise if name.rsplit(".", 1)[-1].startswith("layer_scale") else None


def smaller(name: str, noise: np.ndarray) -> np.ndarray | None:
    """EGFNet's, which multiplies maps with each other and with an edge map of up to 255."""
    factor = 0.25 if name.startswith("rgbconv") else 1
    if name in ("convedge.weight", "semantic.convedge.weight"):
        factor = 0.02
    if factor == 1:
        return None
    return factor * (noise / np.sqrt(np.prod(noise.shape[1:])) if noise.ndim > 1 else 0.05 * noise)


def small_scales(name: str, noise: np.ndarray) -> np.ndarray | None:
    """CMNeXt's, with which the deep second branch would explode."""
    return None if scales(name, noise) is None else 0.3 * (1 + 0.1 * noise)


GMNET_DEEP = ("in3", "gc3", "decoder3")
GMNET = same("densefuse3", "gc3", "lfe2", "decoder3") | {
    "binary": "auxiliary:binary",
    "boundary": "auxiliary:boundary",
}

SGFNET = same("haconv2", "hanet34", "lawin.cat", "lawin") | {
    "content_guide": "t_semout",
    "se_block3": "SE_block3",
    "edge": "auxiliary:edge",
    "thermal_semantic": "auxiliary:thermal_semantic",
}

EGFNET = same("aspp", "resf4") | {"em3_features": "em3", "em5_features": "em5"}
EGFNET_HEADS = {"em5_semantic": "em5.convs"} | {
    name: f"auxiliary:{name}" for name in ("semantic", "boundary3", "boundary2", "boundary1")
}

MDRNET_TRAINING = ("pseudo_thermal", "pseudo_rgb", "recon_thermal", "recon_rgb")
MDRNET = {
    "weight_d2": "weigh@1",
    "msc": "encoder_fusion_layer3",
    "mcc": "encoder_fusion_layer5",
    "msc_dilated4": "encoder_fusion_layer3.Dconv4",
    "mcc_dilated4": "encoder_fusion_layer5.Dconv4",
    **same("fusion_conv2"),
}

MMSMCNET = {
    "rgb_stage3": "rgb.stages.2",
    "thermal_stage1": "t.stages.0",
    "sp1_attention": "sp1.TdSAtt",
    **same("fusion1", "fusion4", "bp1", "sp1", "ep2"),
    **{
        f"{kind}{index}": f"auxiliary:{kind}{index}"
        for kind in ("boundary", "saliency")
        for index in (1, 2, 3)
    },
}

SFAFMA = {
    **same("global_att3", "aspp4"),
    "context1": "aspp4.context1",
    "context4": "aspp4.context4",
    **same("decoder4", "decoder2"),
}

RSFNET = {
    "gate_rgb": "auxiliary:gate_rgb",
    "aux_8": "auxiliary:aux_8",
    "aux_16": "auxiliary:aux_16",
    "gate3_rgb": "gate3#0",
    "gate3_thermal": "gate3#1",
    **same("rgb_down3", "fam43_rgb"),
}

CASES = (
    Case(
        "mfnet",
        "mfnet",
        {
            **same("conv1_rgb", "conv2_2_rgb", "conv3_2_rgb", "conv4_rgb", "conv5_rgb", "conv1_inf"),
            **same("conv4_inf", "conv5_inf", "decode4", "decode3", "decode2", "conv4_rgb.conv1_right"),
            "decode4_input": "decode4<#0",
        },
    ),
    Case("rtfnet50", "rtfnet", RTFNET, "features_50.npz", "shapes_50.json", slow=True),
    Case("rtfnet152", "rtfnet", RTFNET, "features_152.npz", "shapes_152.json", slow=True),
    Case(
        "feanet",
        "feanet",
        {
            **{f"sum{level}": f"fuse_level@{level}#0" for level in range(5)},
            **{f"thermal{level}": f"fuse_level@{level}#1" for level in range(4)},
            "thermal4": "encoder_thermal.layer4",
            **same("deconv1", "deconv4"),
        },
        slow=True,
    ),
    Case("pstnet", "pstnet", PSTNET, classes=5),
    Case("pstnet", "pstnet", PSTNET, "features_360x640.npz", classes=5, slow=True),
    Case("eaefnet50", "eaefnet", EAEFNET, "features_50.npz", "shapes_50.json", special=gates, slow=True),
    Case("eaefnet", "eaefnet", EAEFNET, "features_152.npz", "shapes_152.json", special=gates, slow=True),
    Case(
        *("eaefnet_pst900", "eaefnet", EAEFNET | {"logits_low": "auxiliary:logits"}),
        *("features_pst900_152.npz", "shapes_pst900_152.json", 5),
        special=gates,
        skipped=("logits_sum",),
        slow=True,
    ),
    Case(
        "lasnet",
        "lasnet",
        {
            **{
                f"level{level}_{kind}": f"rgbconv{level}<#0"
                for level in (1, 3, 5)
                for kind in ("rgb", "thermal")
            },
            **{f"reduced4_{kind}": "rgbconv4" for kind in ("rgb", "thermal")},
            "clm_corr_rgb": "CLM5.corr_x_2_x_ir",
            "clm_out": "CLM5",
            "cam4_sum": "CAM4.conv2",
            "cam4_out": "CAM4",
            "cam2_out": "CAM2",
            "esm_out": "ESM1",
            "decoder5": "decoder.decoder5",
            "decoder2": "decoder.decoder2",
            **{name: f"auxiliary:{name}" for name in ("logits_aux", "location", "edge")},
        },
        slow=True,
    ),
    Case("segformer_b0", "segformer_b0", MIT, modality="rgb"),
    Case("segformer_b2", "segformer_b2", MIT, modality="rgb", slow=True),
    Case("cmx_b0", "cmx_b0", PAIR),
    Case("cmx_b2", "cmx_b2", PAIR, slow=True),
    Case("cmx_b4", "cmx_b4", PAIR, slow=True),
    Case("cmnext_b2", "cmnext_b2", CMNEXT, special=small_scales, slow=True),
    Case("cmnext_b4", "cmnext_b4", CMNEXT, special=small_scales, slow=True),
    tuni("tuni_t", "tuni_v2_t", (2, 2, 4, 2)),
    tuni("tuni_s", "tuni_v2_s", (2, 2, 4, 2)),
    tuni("tuni_v1_s", "tuni_v1_s", (2, 2, 4, 2)),
    tuni("tuni_b", "tuni_v2_b", (3, 3, 12, 2), slow=True),
    *(
        Case("gmnet", "gmnet", GMNET if small else same(*GMNET_DEEP), features, slow=True)
        for features, small in (("features.npz", True), ("features_large.npz", False))
    ),
    Case("sgfnet", "sgfnet", SGFNET, slow=True),
    Case("egfnet", "egfnet", EGFNET | EGFNET_HEADS, special=smaller, edge=True, slow=True),
    Case("egfnet", "egfnet", EGFNET, "features_large.npz", special=smaller, edge=True, slow=True),
    *(
        Case(*("mdrnet", "mdrnet", MDRNET, features), skipped=MDRNET_TRAINING, slow=True)
        for features in ("features.npz", "features_large.npz")
    ),
    Case("mmsmcnet", "mmsmcnet", MMSMCNET, slow=True),
    *(
        Case("sfafma", "sfafma", SFAFMA, features, slow=True)
        for features in ("features.npz", "features_large.npz")
    ),
    Case("rsfnet", "rsfnet", RSFNET, slow=True),
)
