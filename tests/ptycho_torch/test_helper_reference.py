"""The operators against vectors recorded from the public implementation, in shared/reference.

Its README marks the rows that record that implementation's own defects; they are in `NOT_COMPARED` with their
reason. Two differences are deliberate, and the comparison works around them: we refuse offsets that push a patch over
the border where the recorded rows clip it, so canvases are made larger here and cut back; and our mask is relative to
each group's weight, theirs to the batch's (no recorded pixel tells them apart).
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho_torch import helper
from ptycho_torch.reassembly import place_patches

TOLERANCE = 2e-5  # of the largest recorded value
MARGIN = 6  # pixels of canvas on each side, so that recorded offsets fit

Case = dict[str, np.ndarray]

TRANSLATION = [
    "cplx_n1_sq8",
    "cplx_rect_17x24_sub",
    "cplx_sq16_sub",
    "cplx_sq64_sub",
    "delta_dir",
    "delta_half",
    "out_of_frame_sq8",
    "real_rect_12x20_sub",
    "real_sq16_sub",
    "real_sq8_int",
    "zero_offset_sq16",
]
MERGE = [
    "c1_n16_zero",
    "c4_n16",
    "c4_n16_delta_grid",
    "c4_n16_maxnd5",
    "c4_n16_padded30",
    "c4_n16_padded31_odd",
    "c4_n64",
]
CROPPED_MERGE = ["c4_n16_crop10_padded40", "c4_n16_crop8"]
TRANSLATED_ONLY = ["c4_n16_noagg"]
PROBE_MERGE = [
    "c1_p1_5d",
    "c4_batch3d",
    "c4_n64_p1_5d",
    "c4_p1_5d",
    "c4_p1_shared_5d",
    "c4_p3_5d",
    "c4_plain2d",
    "c4_uniform",
]
EXTRACTION = ["c1_n16", "c4_n16", "c4_n16_maxnd5", "c4_n64", "c9_n16"]
DIFFRACTION = ["p1_n64_nopad", "p1_nopad", "p1_pad"]
SIMULATED_INTENSITY = ["iad_n64", "iad_p1", "iad_p2d"]
PLACEMENT = ["acc_barycentric", "acc_int_pos", "acc_out_of_bounds", "acc_probe", "acc_uniform"]
FORWARD_ALONE = ["amp_c1", "rect_c1", "rect_c1_p2_incoherent"]
FORWARD_MERGED = ["amp_c4_big_central", "amp_c4_big_probe", "amp_c4_big_uniform", "rect_c4_big_central"]

NOT_COMPARED = {
    "translation": {},
    "reassemble": {},
    "reassemble_probe": {},
    "extract_pad": dict.fromkeys(
        [
            "center_crop_even",
            "center_crop_odd",
            "center_crop_odd2",
            "flat_to_channel",
            "pad_obj",
            "trim_and_pad",
            "trim_recon",
        ],
        "a helper that this package does not have",
    ),
    "diffract": {
        "p3_nopad": "defect: modes added as waves",
        "iad_p3": "defect: modes added as waves",
        "rect_nopad": "our patches are square",
        "rect_pad": "our patches are square",
    },
    "forward_model": {
        "amp_c1_p2_coherent": "defect: modes added as waves",
        "amp_c1_gain16": "a gain that this package does not have",
    }
    | dict.fromkeys(["ci_norm", "combine", "loss", "realimag"], "not an operator of helper"),
    "whole_object": {"padded_canvas_size": "our canvas is the bounding box"}
    | dict.fromkeys(["varpro"], "a solver that this package does not have")
    | dict.fromkeys(["multi_ch", "single_ch"], "an older reassembly around a centre of mass")
    | dict.fromkeys(
        ["bary", "bary_c1_probe", "bary_c1_probe_varpro", "bary_c1_uniform", "bary_c4_probe"],
        "the whole path of another model",
    ),
}
COMPARED = {
    "translation": TRANSLATION,
    "reassemble": MERGE + CROPPED_MERGE + TRANSLATED_ONLY,
    "reassemble_probe": PROBE_MERGE,
    "extract_pad": [*EXTRACTION, "padded_size_table"],
    "diffract": DIFFRACTION + SIMULATED_INTENSITY,
    "forward_model": FORWARD_ALONE + FORWARD_MERGED,
    "whole_object": PLACEMENT,
}


@cache
def read(path: Path) -> dict[str, Case]:
    cases: dict[str, Case] = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, field = key.partition("__")
            cases.setdefault(name, {})[field] = file[key]
    return cases


def load(shared: Path, file: str, case: str) -> tuple[Case, dict[str, int]]:
    fields = read(shared / "reference" / f"{file}.npz")[case]
    return fields, json.loads(str(fields["meta"])) if "meta" in fields else {}


def assert_close(found: torch.Tensor, recorded: np.ndarray) -> None:
    assert found.shape == recorded.shape
    assert np.abs(found.numpy() - recorded).max() <= TOLERANCE * np.abs(recorded).max()


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


@pytest.mark.parametrize("file", sorted(COMPARED))
def test_every_recorded_case_is_compared_or_left_out_for_a_reason(shared: Path, file: str) -> None:
    recorded = read(shared / "reference" / f"{file}.npz")

    assert sorted(recorded) == sorted([*COMPARED[file], *NOT_COMPARED[file]])


@pytest.mark.parametrize("case", TRANSLATION)
def test_translation(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "translation", case)

    assert_close(helper.Translation(tensor(recorded["img"]), tensor(recorded["offset"])), recorded["out"])


def merge_with_margin(
    patches: torch.Tensor, offsets: torch.Tensor, canvas_size: int, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    merged, mask = helper.reassemble_patches_position_real(patches, offsets, canvas_size + 2 * MARGIN, weights)
    inside = (slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    return merged[inside], mask[inside]


@pytest.mark.parametrize("case", MERGE)
def test_merge_with_default_weights(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "reassemble", case)

    merged, mask = merge_with_margin(tensor(recorded["patches"]), tensor(recorded["offsets"]), int(recorded["M"]), None)

    assert_close(merged, recorded["merged"])
    assert np.array_equal(mask.numpy(), recorded["mask"])


@pytest.mark.parametrize("case", ["c1_n16_zero", "c4_n16_delta_grid", "c4_n16_padded30", "c4_n16_padded31_odd"])
def test_merge_needs_no_margin_where_the_recorded_offsets_fit(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "reassemble", case)

    merged, _ = helper.reassemble_patches_position_real(
        tensor(recorded["patches"]), tensor(recorded["offsets"]), int(recorded["M"])
    )

    assert_close(merged, recorded["merged"])


@pytest.mark.parametrize("case", ["c4_n16", "c4_n64"])
def test_merge_refuses_recorded_offsets_that_it_would_have_to_clip(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "reassemble", case)

    with pytest.raises(ValueError, match="Expected offsets to be at most 2 pixels"):
        helper.reassemble_patches_position_real(
            tensor(recorded["patches"]), tensor(recorded["offsets"]), int(recorded["M"])
        )


@pytest.mark.parametrize("case", TRANSLATED_ONLY)
def test_translation_by_minus_the_offset_puts_patches_on_their_canvases(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "reassemble", case)
    patches, expected = recorded["patches"], recorded["translated"]
    before = expected.shape[-1] // 2 - patches.shape[-1] // 2
    canvases = np.zeros_like(expected)
    canvases[..., before : before + patches.shape[-1], before : before + patches.shape[-1]] = patches

    moved = helper.Translation(tensor(canvases).flatten(0, 1), -tensor(recorded["offsets"]).flatten(0, 1))

    assert_close(moved.view(expected.shape), expected)


@pytest.mark.parametrize("case", CROPPED_MERGE)
def test_cropped_merges_are_placements_with_full_weights(shared: Path, case: str) -> None:
    """These rows average crops with weight 1 throughout, which `place_patches` does for one group at a time."""
    recorded, meta = load(shared, "reassemble", case)
    size, side = meta["crop_size"], int(recorded["M"])
    start = recorded["patches"].shape[-1] // 2 - size // 2
    crops = recorded["patches"][..., start : start + size, start : start + size]
    offsets = recorded["offsets"] - recorded["offsets"].mean(axis=(0, 1), keepdims=True)

    for b, merged in enumerate(recorded["merged"]):
        centres = tensor((side // 2 - offsets[b]).astype(np.float32))
        placement = place_patches(tensor(crops[b].copy()), centres, torch.ones(size, size), shape=(side, side))
        assert np.abs(placement.obj.numpy() - merged).max() <= TOLERANCE * np.abs(recorded["merged"]).max()
        assert np.array_equal(placement.weight.numpy() > 1e-6, recorded["mask"][b])


def weights_of(recorded: Case) -> torch.Tensor:
    """Weights of a recorded merge: of its probe, in one of four layouts, or the central square."""
    B, C, N, _ = recorded["patches"].shape
    if "probe" not in recorded:
        weights = torch.zeros(B, C, N, N)
        weights[..., N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 1.0
        return weights
    probe = recorded["probe"]
    modes = {2: probe[None, None, None], 3: probe[:, None, None]}[probe.ndim] if probe.ndim < 5 else probe
    return helper.probe_weights(tensor(modes.copy()).expand(B, C, -1, -1, -1))


@pytest.mark.parametrize("case", PROBE_MERGE)
def test_merge_with_given_weights(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "reassemble_probe", case)

    merged, mask = merge_with_margin(
        tensor(recorded["patches"]), tensor(recorded["offsets"]), int(recorded["M"]), weights_of(recorded)
    )

    assert_close(merged, recorded["merged"])
    assert np.array_equal(mask.numpy(), recorded["mask"])


@pytest.mark.parametrize("case", EXTRACTION)
def test_extraction(shared: Path, case: str) -> None:
    recorded, meta = load(shared, "extract_pad", case)
    region = torch.nn.functional.pad(tensor(recorded["region"]), (MARGIN, MARGIN, MARGIN, MARGIN))

    patches = helper.extract_channels_from_region(region, tensor(recorded["offsets"]), meta["N"])

    assert_close(patches, recorded["patches"])


def test_padded_size(shared: Path) -> None:
    table = read(shared / "reference" / "extract_pad.npz")["padded_size_table"][""]

    for N, gridsize, distance, M in table.tolist():
        assert helper.padded_size(int(N), int(gridsize), distance) == int(M)


@pytest.mark.parametrize("case", DIFFRACTION)
def test_diffraction(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "diffract", case)
    size, padded = recorded["in"].shape[-1], recorded["amp"].shape[-1]
    around = (padded - size) // 2
    waves = torch.nn.functional.pad(tensor(recorded["in"]), (around,) * 4)
    # The padded row is recorded with the norm of the unpadded transform.
    norm = padded / size

    assert_close(helper.diffract(waves) * norm, recorded["amp"])


@pytest.mark.parametrize("case", SIMULATED_INTENSITY)
def test_intensity_of_an_illuminated_object(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "diffract", case)
    patches = tensor(recorded["obj"]).unsqueeze(1)
    probe = tensor(recorded["scaled_probe"]).unsqueeze(0).expand(len(patches), -1, -1, -1, -1)

    intensity = helper.diffract(helper.illuminate(patches, probe))[:, 0].square()

    assert_close(intensity, recorded["intensity"])
    assert intensity.sum(dim=(1, 2)).mean().item() == pytest.approx(float(recorded["nphotons"]), rel=1e-5)


def forward(patches: torch.Tensor, recorded: Case, case: str) -> torch.Tensor:
    """What a case records: amplitude over the scale, or intensity times the scale squared."""
    probe = tensor(recorded["probe"]).expand(*patches.shape[:2], -1, -1, -1)
    amplitude, scale = helper.diffract(helper.illuminate(patches, probe)), tensor(recorded["output_scale"])
    return amplitude / scale if case.startswith("amp") else (amplitude * scale).square()


@pytest.mark.parametrize("case", FORWARD_ALONE)
def test_forward_model_of_single_patches(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "forward_model", case)

    assert_close(forward(tensor(recorded["x"]), recorded, case), recorded["out"])


@pytest.mark.parametrize("case", FORWARD_MERGED)
def test_forward_model_through_merge_and_extraction(shared: Path, case: str) -> None:
    recorded, meta = load(shared, "forward_model", case)
    x, offsets = tensor(recorded["x"]), tensor(recorded["positions"])
    like_a_merge = {"patches": recorded["x"]} | ({"probe": recorded["probe"]} if case.endswith("probe") else {})
    weights = None if case.endswith("central") else weights_of(like_a_merge)

    merged, _ = merge_with_margin(x, offsets, helper.padded_size(meta["N"], 2, 3.0), weights)
    clipped_canvas = torch.nn.functional.pad(merged, (MARGIN,) * 4).unsqueeze(1)
    patches = helper.extract_channels_from_region(clipped_canvas, offsets, meta["N"])

    assert_close(forward(patches, recorded, case), recorded["out"])


@pytest.mark.parametrize("case", PLACEMENT)
def test_placement_sums(shared: Path, case: str) -> None:
    recorded, _ = load(shared, "whole_object", case)
    weights = recorded["probe_mag_sq"] if case == "acc_probe" else np.ones_like(recorded["probe_mag_sq"])

    placement = place_patches(
        tensor(recorded["patches"]),
        tensor(recorded["positions_px"]).unsqueeze(1),
        tensor(weights),
        shape=recorded["canvas"].shape,
        allow_dropped=case == "acc_out_of_bounds",
    )

    assert_close(placement.obj * placement.weight, recorded["canvas"])
    assert_close(placement.weight, recorded["weights"])
    assert placement.anchor == (0, 0)
    assert placement.dropped == (2 if case == "acc_out_of_bounds" else 0)
