"""The command line: arguments, exit codes and what an error looks like.

Nothing that needs torch is imported before the arguments are known to be good, so that ``--help`` and mistyped options
answer at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ptycho_torch.config_params import ACCELERATOR, STREAM, TrainingConfig
from ptycho_torch.files import interrupted_by_termination

__all__ = ["build_parser", "main"]

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

# Options of `train` that are overrides of the configuration, under the same name there.
_OVERRIDES = (
    "gridsize",
    "neighbor_count",
    "n_groups",
    "batch_size",
    "max_epochs",
    "learning_rate",
    "loss",
    "accelerator",
    "devices",
    "num_workers",
    "seed",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What stands after the command's name; those of the process by default.

    Returns:
        0; 1 when the work failed; 2 when the input is bad; 130 when interrupted.
    """
    options = build_parser().parse_args(arguments)
    from shapecheck import ContractError  # not before the arguments are known to be good

    try:
        options.run(options)
    except ContractError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    except (ValueError, OSError) as error:  # ScanError, ConfigError, BundleError; a folder that cannot be written
        print(f"ptycho-torch: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (RuntimeError, MemoryError) as error:
        print(f"ptycho-torch: failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt as stop:
        print(f"ptycho-torch: interrupted{f'; {stop}' if stop.args else ''}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="ptycho-torch",
        description="Ptychography with a physics-informed network. Files, units and signs: docs/conventions.md.",
    )
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="{simulate,train,infer,reconstruct,convert,report,demo}"
    )
    _add_simulate(commands)
    _add_train(commands)
    _add_infer(commands)
    _add_reconstruct(commands)
    _add_convert(commands)
    _add_report(commands)
    _add_demo(commands)
    return parser


def _command(commands: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=description, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def _add_simulate(commands: Any) -> None:
    parser = _command(commands, "simulate", _simulate, "simulate a scan of a natural picture and write it as NPZ")
    parser.add_argument("--output", type=Path, required=True, help="the NPZ file to write")
    parser.add_argument("--patch_size", type=int, default=64, help="N, patch and detector side, pixels")
    parser.add_argument("--n_rows", type=int, default=32, help="rows of the raster of positions")
    parser.add_argument("--n_columns", type=int, default=32, help="columns of the raster of positions")
    parser.add_argument("--step", type=float, default=6.0, help="distance of raster points, object pixels")
    parser.add_argument("--jitter", type=float, default=3.0, help="largest random displacement, object pixels")
    parser.add_argument("--n_modes", type=int, default=1, help="P, incoherent probe modes")
    parser.add_argument("--nphotons", type=float, default=5e5, help="mean counts per pattern")
    parser.add_argument("--seed", type=int, default=0, help="of object, positions and noise")


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _train, "train a model on a scan and write it as a bundle")
    parser.set_defaults(refuse=parser.error)
    parser.add_argument("--train_data_file", type=Path, help="scan to train on, NPZ or CXI; required, but for --resume")
    parser.add_argument("--test_data_file", type=Path, help="scan to validate on after every epoch")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for bundle, logs and loss curve")

    def override(name: str, kind: Any, text: str, default: Any, **more: Any) -> None:
        # No default here: an option that was not given must not look like an override.
        parser.add_argument(
            f"--{name}", type=kind, default=argparse.SUPPRESS, help=f"{text} (default: {default})", **more
        )

    override("n_groups", int, "groups drawn per epoch", "required, but for --resume")
    override("gridsize", int, "a group has C = gridsize**2 patches", 6)
    override("neighbor_count", int, "K nearest positions that a group is drawn from, at least C", "C + 2")
    override("batch_size", int, "groups per batch", TrainingConfig.batch_size)
    override("max_epochs", int, "epochs at most", TrainingConfig.max_epochs)
    override("learning_rate", float, "largest learning rate of the cycle", TrainingConfig.learning_rate)
    losses = get_args(TrainingConfig.__annotations__["loss"])
    override("loss", str, "Poisson likelihood or mean absolute error", TrainingConfig.loss, choices=losses)
    machines = get_args(ACCELERATOR)
    override("accelerator", str, "where to train", TrainingConfig.accelerator, choices=machines)
    override("devices", int, "number of accelerators or processes", TrainingConfig.devices)
    override("num_workers", int, "processes that load batches", TrainingConfig.num_workers)
    override("seed", int, "of groups, weights and shuffling", TrainingConfig.seed)
    parser.add_argument(
        "--stream",
        choices=get_args(STREAM),
        default="auto",
        help="read patterns when a batch needs them, instead of keeping them in memory (default: where they would "
        "take more than half of it)",
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--resume", action="store_true", help="go on with what was interrupted in output_dir, as it was begun"
    )
    begin.add_argument("--start_from", type=Path, metavar="MODEL", help="bundle whose weights to begin with")
    _add_dry_run(begin, "scan and configuration fit")


def _add_dry_run(parser: Any, what: str) -> None:
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help=f"only find out, in seconds, whether {what}, and what memory it takes",
    )


def _add_infer(commands: Any) -> None:
    parser = _command(commands, "infer", _infer, "reconstruct the object of a scan with a trained model")
    parser.add_argument("--model_path", type=Path, required=True, help="bundle, or the output_dir of its training")
    parser.add_argument("--test_data", type=Path, required=True, help="scan to reconstruct, NPZ or CXI")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for reconstruction, pictures, metrics")
    parser.add_argument(
        "--refine", type=int, default=20, metavar="N", help="epochs of an iterative engine, from what the model saw"
    )
    parser.add_argument("--refine_probe", action="store_true", help="refine the probe, too")
    parser.add_argument("--devices", type=int, default=1, help="processes that share the tiles of a large scan")
    parser.add_argument("--tile_mib", type=int, default=1024, help="memory that a tile may take, MiB")
    _add_dry_run(parser, "model and scan can be read")


def _add_reconstruct(commands: Any) -> None:
    description = "reconstruct the object of a scan without a model, by an iterative engine from a flat object"
    parser = _command(commands, "reconstruct", _reconstruct, description)
    parser.add_argument("--test_data", type=Path, required=True, help="scan to reconstruct, NPZ or CXI")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for reconstruction, pictures, metrics")
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="how often each pattern is used")
    parser.add_argument("--refine_probe", action="store_true", help="refine the probe, too")


def _add_convert(commands: Any) -> None:
    description = "convert scans and results between NPZ, CXI, HDF5, TIFF and the products of ptychodus"
    parser = _command(commands, "convert", _convert, description)
    parser.add_argument("source", type=Path, metavar="IN", help="NPZ or HDF5 file; its content tells the format")
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help=".npz: scan, or result where IN has no patterns; .cxi: scan; .h5, .hdf5, .tif, .tiff: result",
    )
    parser.add_argument("--with", dest="supplement", type=Path, help="file to take from what IN does not hold")
    parser.add_argument("--ptychodus", action="store_true", help="write a product of ptychodus: .h5, .hdf5, .npz")
    parser.add_argument("--energy_ev", type=float, help="photon energy, where no file knows it")
    parser.add_argument("--distance_m", type=float, help="sample to detector, likewise")
    parser.add_argument("--detector_pixel_m", type=float, help="side of a detector pixel, likewise")


def _add_report(commands: Any) -> None:
    description = "write one HTML page of everything that an output folder knows: training, reconstruction or both"
    parser = _command(commands, "report", _report, description)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output_dir of train, infer, reconstruct or demo")
    parser.add_argument(
        "--output", type=Path, help="the HTML file (default: report.html in FOLDER)", default=argparse.SUPPRESS
    )


def _add_demo(commands: Any) -> None:
    description = "simulate, train, reconstruct, and replay the historical axis-order bug with checking on and off"
    parser = _command(commands, "demo", _demo, description)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_output"), help="folder for everything written")
    parser.add_argument("--fast", action="store_true", help="tiny sizes: seconds instead of minutes, a poor picture")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation and the training")


def _say(what: str, *, quiet: bool) -> None:
    if not quiet:
        print(what)


def _simulate(options: argparse.Namespace) -> None:
    from ptycho_torch.commands import simulate

    settings = {key: value for key, value in vars(options).items() if key not in {"run", "quiet", "output"}}
    simulate(options.output, settings, quiet=options.quiet)


def _train(options: argparse.Namespace) -> None:
    missing = [name for name in ("train_data_file", "n_groups") if getattr(options, name, None) is None]
    if missing and not options.resume:
        options.refuse(f"required, but for --resume: {', '.join(f'--{name}' for name in missing)}")
    overrides = {key: getattr(options, key) for key in _OVERRIDES if hasattr(options, key)}
    files = options.train_data_file, options.test_data_file, options.output_dir
    if options.dry_run:
        from ptycho_torch.dry_run import try_training

        found = try_training(*files, overrides, stream=options.stream)
        _say(found, quiet=options.quiet)
        return
    from ptycho_torch.commands import train

    with interrupted_by_termination():
        begin = {"start_from": options.start_from, "resume": options.resume}
        train(*files, overrides, **begin, stream=options.stream, quiet=options.quiet)


def _infer(options: argparse.Namespace) -> None:
    files = options.model_path, options.test_data, options.output_dir
    refinement = {"refine_epochs": options.refine, "refine_probe": options.refine_probe}
    machine = {"devices": options.devices, "tile_bytes": options.tile_mib * 2**20}
    if options.dry_run:
        from ptycho_torch.dry_run import try_inference

        found = try_inference(*files, **refinement, **machine)
        _say(found, quiet=options.quiet)
        return
    from ptycho_torch.commands import infer

    with interrupted_by_termination():
        infer(*files, **refinement, **machine, quiet=options.quiet)


def _reconstruct(options: argparse.Namespace) -> None:
    from ptycho_torch.commands import reconstruct

    with interrupted_by_termination():
        reconstruct(
            options.test_data,
            options.output_dir,
            epochs=options.epochs,
            refine_probe=options.refine_probe,
            quiet=options.quiet,
        )


def _convert(options: argparse.Namespace) -> None:
    from ptycho_torch.conversion import convert

    names = ("supplement", "energy_ev", "distance_m", "detector_pixel_m", "quiet")
    chosen = {name: getattr(options, name) for name in names}
    with interrupted_by_termination():
        convert(options.source, options.target, as_product=options.ptychodus, **chosen)


def _report(options: argparse.Namespace) -> None:
    from ptycho_torch.report import write_report

    with interrupted_by_termination():
        written = write_report(options.folder, getattr(options, "output", None))
    _say(f"written     {written}", quiet=options.quiet)


def _demo(options: argparse.Namespace) -> None:
    from ptycho_torch.demo import run_demo

    run_demo(options.output_dir, fast=options.fast, seed=options.seed, quiet=options.quiet)
