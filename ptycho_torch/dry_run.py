"""A training tried out in seconds: the scan's declarations, the groups, and one step on fake tensors.

Owns what is looked at and what is said of it. No weight is trained, nothing is written, and of the patterns only the
first few are read: what only the others would show is not found.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ptycho_torch.config_factory import TrainingPayload, create_training_payload
from ptycho_torch.config_params import STREAM
from ptycho_torch.dataloader import batch_contract
from ptycho_torch.formats.limits import memory_limit_bytes, readable_size
from ptycho_torch.grouping import Groups
from ptycho_torch.helper import check_offsets_fit, padded_size
from ptycho_torch.learner import PtychoLearner, quiet_lightning
from ptycho_torch.model import PtychoModel
from ptycho_torch.scan import ScanOnDisk, open_scan
from ptycho_torch.streaming import is_streamed
from ptycho_torch.workflow import check_sizes, draw_groups
from shapecheck.audit import DryRun, dry_run

__all__ = ["DryRunError", "Memory", "try_training"]


class DryRunError(ValueError):
    """A training that would fail."""


class Memory(NamedTuple):
    """Bytes that a training would need, without the libraries themselves."""

    patterns: int  # of the scan, where they are not streamed
    groups: int  # which patterns they are of, and how these lie
    step: int  # at its peak, without what kernels need for themselves

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {readable_size(size)}" for name, size in self._asdict().items() if size)
        return f"{readable_size(sum(self))} at least: {parts}"


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
    if sum(memory) > 2 * memory_limit_bytes():
        msg = f"Expected a training that fits this machine's memory, got {memory}. A smaller batch_size may help."
        raise DryRunError(msg)
    return _told(payload, scan, step, memory)


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
    pattern = 4 * scan.patterns.side**2
    return Memory(
        patterns=0 if is_streamed(scan.patterns, stream) else pattern * len(scan.patterns),
        groups=groups.nn_indices.nbytes + groups.coords_relative.nbytes,
        step=step.memory.peak,
    )


def _told(payload: TrainingPayload, scan: ScanOnDisk, step: DryRun, memory: Memory) -> str:
    data = payload.data
    canvas = padded_size(data.N, data.gridsize, data.max_neighbor_distance)
    batch = f"{min(payload.training.batch_size, data.n_groups)} groups"
    if step.ok:
        tried = f"one of {batch} on fake tensors: no contract broken, {step.parameters:,} trained numbers"
    else:
        tried = f"not tried: {step.outcome.reason}"
    lines = {
        "scan": f"{scan.path}: {len(scan.patterns)} patterns, N={data.N}, P={payload.model.P}; the first patterns read",
        "groups": f"{data.n_groups} of C={data.C}, canvas M={canvas}: every member fits",
        "step": tried,
        "memory": str(memory),
        "dry run": "passed; nothing was trained, nothing was written" if step.ok else "passed, but for the step",
    }
    return "\n".join(f"{name:<11} {text}" for name, text in lines.items())
