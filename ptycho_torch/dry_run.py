"""A training or an inference tried out in seconds: what the files declare, and one step on fake tensors.

Owns what is looked at and what is said of it. Nothing is trained, reconstructed or written, and of the patterns only
the first few are read: what only the others would show is not found.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ptycho_torch.bundle import load_bundle
from ptycho_torch.config_factory import TrainingPayload, create_training_payload, expect_folder
from ptycho_torch.config_params import STREAM
from ptycho_torch.dataloader import batch_contract
from ptycho_torch.exposures import scan_exposures, scan_frame
from ptycho_torch.formats.limits import memory_limit_bytes, readable_size
from ptycho_torch.grouping import Groups
from ptycho_torch.helper import check_offsets_fit, padded_size
from ptycho_torch.learner import PtychoLearner, quiet_lightning
from ptycho_torch.model import PtychoModel
from ptycho_torch.scan import ScanOnDisk, open_scan
from ptycho_torch.streaming import is_streamed
from ptycho_torch.tiling import pattern_bytes
from ptycho_torch.workflow import bundle_in, check_request, check_sizes, draw_groups, plan_inference
from shapecheck import ContractError
from shapecheck.audit import DryRun, dry_run

__all__ = ["DryRunError", "InferenceMemory", "Memory", "try_inference", "try_training"]


class DryRunError(ValueError):
    """A training or an inference that would fail."""


class Memory(NamedTuple):
    """Bytes that a training would need, without the libraries themselves."""

    patterns: int  # of the scan, where they are not streamed
    groups: int  # which patterns they are of, and how these lie
    step: int  # at its peak, without what kernels need for themselves

    def __str__(self) -> str:
        return _added(self._asdict())


class InferenceMemory(NamedTuple):
    """Bytes that an inference would need, without the libraries themselves."""

    patterns: int  # of the scan, where they are not streamed
    tiles: int  # that are reconstructed at a time
    object: int  # with the light on it

    def __str__(self) -> str:
        return _added(self._asdict())


def _added(sizes: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {readable_size(size)}" for name, size in sizes.items() if size)
    return f"{readable_size(sum(sizes.values()))} at least: {parts}"


def try_training(
    train_data_file: Path,
    test_data_file: Path | None,
    output_dir: Path,
    overrides: Mapping[str, Any],
    *,
    stream: STREAM = "auto",
) -> str:
    """Find out whether a training would begin, and what it would need.

    Args:
        train_data_file: The scan to train on.
        test_data_file: A scan to validate on.
        output_dir: Where the training would write.
        overrides: Configuration values that the user set.
        stream: Whether patterns stay in their file.

    Returns:
        What was found, in lines for a person.

    Raises:
        ScanError: A file is not a usable scan.
        ConfigError: The configuration contradicts itself or the scan.
        DryRunError: A step of the training breaks a contract, fails, or needs more memory than there is.
        ValueError: The test scan does not fit the model.
    """
    payload = create_training_payload(train_data_file, output_dir, overrides, sampled=True)
    scan = open_scan(train_data_file)
    groups = _groups(scan, payload, 0)
    if test_data_file is not None:
        test_scan = open_scan(test_data_file)
        check_sizes(test_scan, payload)
        _groups(test_scan, payload, 1)
    step = _step(payload, len(groups.nn_indices))
    memory = _memory(scan, groups, step, stream)
    _expect_to_fit("a training", memory, "A smaller batch_size may help.")
    return _told(payload, scan, step, memory)


def try_inference(
    model_path: Path,
    test_data: Path,
    output_dir: Path,
    *,
    refine_epochs: int,
    refine_probe: bool,
    devices: int,
    tile_bytes: int,
) -> str:
    """Find out whether an inference would begin, and what it would need.

    Args:
        model_path: A bundle, or the folder that a training wrote it to.
        test_data: The scan.
        output_dir: Where the inference would write.
        refine_epochs: As of `workflow.infer`, as are the others.
        refine_probe: Likewise.
        devices: Likewise.
        tile_bytes: Likewise.

    Returns:
        What was found, in lines for a person.

    Raises:
        BundleError: The bundle is not usable.
        ScanError: The file is not a usable scan.
        DryRunError: The network breaks a contract, or more memory is needed than there is.
        ConfigError: The output folder is a file.
        ValueError: The refinement cannot be had.
    """
    check_request(refine_epochs, refine_probe=refine_probe, devices=devices)
    expect_folder(output_dir)
    model_path = bundle_in(model_path)
    model, scan = load_bundle(model_path).model, open_scan(test_data)
    tiles = plan_inference(scan, tile_bytes, refine_probe=refine_probe)
    next(scan.patterns.blocks())
    most = max(len(tile.used) for tile in tiles)
    _, (rows, columns) = scan_frame(scan.xcoords, scan.ycoords, scan.patterns.side)
    _predict(model, scan, most, (rows, columns))
    memory = InferenceMemory(
        patterns=_held(scan, "auto"),
        tiles=min(devices, len(tiles)) * most * pattern_bytes(scan),
        object=rows * columns * (8 + 4),
    )
    _expect_to_fit("an inference", memory, "Smaller tiles or fewer devices may help.")
    lines = {
        "scan": f"{_scan_line(scan)}; the first patterns read",
        "model": f"{model_path}: {sum(weight.numel() for weight in model.parameters()):,} trained numbers",
        "object": f"{rows} x {columns} pixels, in {len(tiles)} tile{'s' * (len(tiles) > 1)} of up to {most} patterns",
        "network": "tried on fake tensors: no contract broken",
        "memory": str(memory),
        "dry run": "passed; nothing was reconstructed, nothing was written",
    }
    return _listed(lines)


def _predict(model: PtychoModel, scan: ScanOnDisk, n_patterns: int, shape: tuple[int, int]) -> None:
    """Show the network fake patterns, as many as those of a tile.

    Raises:
        DryRunError: It breaks a contract.
    """
    side = scan.patterns.side
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        exposures = scan_exposures(
            torch.empty(n_patterns, side, side),
            torch.empty(scan.probe.shape, dtype=torch.complex64),
            torch.empty(n_patterns, dtype=torch.int64),
            torch.empty(n_patterns, 2),
            shape,
        )
        try:
            model.reconstruct(exposures)
        except ContractError as broken:
            raise DryRunError(str(broken)) from None


def _expect_to_fit(what: str, memory: Memory | InferenceMemory, cure: str) -> None:
    if sum(memory) > 2 * memory_limit_bytes():
        msg = f"Expected {what} that fits this machine's memory, got {memory}. {cure}"
        raise DryRunError(msg)


def _groups(scan: ScanOnDisk, payload: TrainingPayload, experiment_id: int) -> Groups:
    """Draw the groups that a training would draw, and see that the model's canvas holds them."""
    data = payload.data
    groups = draw_groups(scan, data, experiment_id)
    offsets = torch.from_numpy(groups.coords_relative).permute(0, 3, 1, 2)
    check_offsets_fit(offsets, data.N, padded_size(data.N, data.gridsize, data.max_neighbor_distance))
    return groups


def _step(payload: TrainingPayload, n_groups: int) -> DryRun:
    """Take one step on fake tensors.

    Raises:
        DryRunError: A real one would fail; tells where.
    """

    def build() -> PtychoLearner:
        probe = torch.ones(payload.model.P, payload.data.N, payload.data.N, dtype=torch.complex64)
        return PtychoLearner(PtychoModel(payload.model, probe), payload.training)

    sizes = {"B": min(payload.training.batch_size, n_groups), "P": payload.model.P}
    with quiet_lightning():
        found = dry_run(build, batch_contract(payload.model), sizes=sizes)
    if found.outcome.verdict not in {"passed", "not run"}:
        raise DryRunError(str(found))
    return found


def _memory(scan: ScanOnDisk, groups: Groups, step: DryRun, stream: STREAM) -> Memory:
    return Memory(
        patterns=_held(scan, stream),
        groups=groups.nn_indices.nbytes + groups.coords_relative.nbytes,
        step=step.memory.peak,
    )


def _held(scan: ScanOnDisk, stream: STREAM) -> int:
    """Count the bytes of the patterns in memory."""
    return 0 if is_streamed(scan.patterns, stream) else 4 * scan.patterns.side**2 * len(scan.patterns)


def _told(payload: TrainingPayload, scan: ScanOnDisk, step: DryRun, memory: Memory) -> str:
    data = payload.data
    canvas = padded_size(data.N, data.gridsize, data.max_neighbor_distance)
    batch = f"{min(payload.training.batch_size, data.n_groups)} groups"
    if step.ok:
        tried = f"one of {batch} on fake tensors: no contract broken, {step.parameters:,} trained numbers"
    else:
        tried = f"not tried: {step.outcome.reason}"
    lines = {
        "scan": f"{_scan_line(scan)}; the first patterns read",
        "groups": f"{data.n_groups} of C={data.C}, canvas M={canvas}: every member fits",
        "step": tried,
        "memory": str(memory),
        "dry run": "passed; nothing was trained, nothing was written" if step.ok else "passed, but for the step",
    }
    return _listed(lines)


def _scan_line(scan: ScanOnDisk) -> str:
    bad = "" if scan.bad_pixels is None else f", {scan.bad_pixels.sum()} bad pixels left out"
    return f"{scan.path}: {len(scan.patterns)} patterns, N={scan.patterns.side}, P={len(scan.probe)}{bad}"


def _listed(lines: Mapping[str, str]) -> str:
    return "\n".join(f"{name:<11} {text}" for name, text in lines.items())
