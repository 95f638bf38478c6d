"""What a run leaves in its folder: where it lies, what it says, and what is refused."""

import json
from pathlib import Path

import pytest

from ptycho_torch.runs import (
    ReconstructionRecord,
    RecordError,
    ResumeError,
    RunRecord,
    check_same,
    checkpoint_folder,
    interrupted_run,
    new_run,
    newest_first,
    read_losses,
    versions,
)


def make_record(**changes: object) -> RunRecord:
    settings = {
        "batch_size": {"default": 16, "used": 5, "source": "override"},
        "neighbor_count": {"default": 6, "used": 6, "source": "derived"},
        "num_workers": {"default": 0, "used": 0, "source": "default"},
        "loss": {"default": "poisson", "used": "poisson", "source": "default"},
    }
    values = {
        "train_data_file": "/data/scan.npz",
        "test_data_file": None,
        "start_from": "/models/known.ptycho",
        "settings": settings,
        "fingerprints": {"train": "aa"},
        "scan": {"patterns": 42},
        "versions": {"python": "3.11"},
        "started": "2026-01-02 03:04:05 UTC",
    }
    return RunRecord(**(values | changes))


def setting(key: str, used: object, source: str = "override") -> RunRecord:
    record = make_record()
    return make_record(settings={**record.settings, key: {"default": None, "used": used, "source": source}})


def make_runs(output_dir: Path, *numbers: int) -> None:
    for number in numbers:
        checkpoint_folder(output_dir / "logs" / f"version_{number}").mkdir(parents=True)


def test_runs_are_numbered_and_the_newest_is_that_of_the_largest_number(tmp_path):
    assert new_run(tmp_path).name == "version_0"
    make_runs(tmp_path, 9, 10, 2)
    (tmp_path / "logs" / "version_old").mkdir()
    assert [folder.name for folder in newest_first(tmp_path)] == ["version_10", "version_9", "version_2"]
    assert new_run(tmp_path).name == "version_11"


def test_the_newest_run_that_has_a_checkpoint_goes_on(tmp_path):
    make_runs(tmp_path, 0, 1, 2)
    for number in (0, 1):
        (checkpoint_folder(tmp_path / "logs" / f"version_{number}") / "last.ckpt").touch()
    assert interrupted_run(tmp_path).name == "version_1"
    (checkpoint_folder(tmp_path / "logs" / "version_1") / "last.ckpt").rename(tmp_path / "elsewhere")
    assert interrupted_run(tmp_path).name == "version_0"


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = make_record()
    assert record.write(tmp_path).name == "run.json"
    assert RunRecord.read(tmp_path) == record
    assert record.overrides == {"batch_size": 5}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"train_data_file": "x"})], ids=repr)
@pytest.mark.parametrize("kind", [RunRecord, ReconstructionRecord], ids=lambda kind: kind.__name__)
def test_a_record_that_is_damaged_or_of_another_version_is_refused(tmp_path, kind, content):
    with pytest.raises(RecordError, match=r"\.json"):
        kind.read(tmp_path)
    (tmp_path / kind.NAME).write_text(content)
    with pytest.raises(RecordError, match=rf"Expected .*{kind.NAME} to "):
        kind.read(tmp_path)


def test_runs_that_were_told_the_same_agree(tmp_path):
    check_same(make_record(), make_record())
    check_same(make_record(), make_record(started="later", train_data_file="/moved/scan.npz", versions={}))
    check_same(make_record(), setting("num_workers", 3))
    check_same(make_record(), make_record(start_from=None))
    check_same(make_record(), setting("batch_size", 5, "default"))


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (setting("batch_size", 16, "default"), "batch_size=5, as the run was begun, got batch_size=16"),
        (setting("loss", "mae"), "loss=poisson"),
        (setting("neighbor_count", 7), "neighbor_count=6"),
        (setting("unheard_of", 1), "unheard_of=nothing"),
        (make_record(start_from="/models/other.ptycho"), "start_from=/models/known.ptycho, as the run was begun"),
        (make_record(fingerprints={"train": "bb"}), "train_data_file to hold what the run was begun with"),
        (
            make_record(fingerprints={"train": "aa", "test": "cc"}, test_data_file="/t.npz"),
            "from no file, got .* in /t.npz",
        ),
    ],
)
def test_runs_that_were_told_something_else_do_not(wanted, named):
    with pytest.raises(ResumeError, match=named):
        check_same(make_record(), wanted)


def test_losses_are_read_by_name_whatever_rows_they_stand_in(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text("epoch,step,train_loss,val_loss\n0,1,,4.5\n0,1,3.5,\n1,3,2.5,3.25\n")
    assert read_losses(table) == {"train_loss": (3.5, 2.5), "val_loss": (4.5, 3.25)}
    table.write_text("epoch,step,train_loss\n0,1,3.5\n")
    assert read_losses(table) == {"train_loss": (3.5,)}


def test_versions_name_what_computes():
    assert {"python", "torch", "lightning", "numpy", "shapecheck-torch"} == versions().keys()
