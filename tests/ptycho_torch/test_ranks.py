"""Several processes that work together: who they are, what they return, and how an error in one ends all."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import torch

from ptycho_torch.config_params import ConfigError
from ptycho_torch.files import interrupted_by_termination
from ptycho_torch.ranks import Ranks, as_the_first_says, is_first, ranks, run_on_ranks

pytestmark = pytest.mark.usefixtures("importable_tests")


def told(folder: Path, *, factor: int) -> tuple[Ranks | None, int, str]:
    """Meet the other processes, write where only the first may, and return what it said."""
    own = ranks()
    torch.distributed.init_process_group("gloo")
    try:
        said = as_the_first_says(lambda: (folder / f"written by {own.rank}").write_text("x" * factor))
        (folder / f"{own.rank} heard {said}").touch()
    finally:
        torch.distributed.destroy_process_group()
    return own, said, str(torch.get_num_threads())


def refuse(key: str) -> None:
    """Fail in the second process; the first would wait forever."""
    if is_first():
        time.sleep(600)
    msg = "Expected 3 modes, got 2."
    raise ConfigError(msg, key)


def vanish() -> None:
    """Be killed, as for want of memory; the first process would wait forever."""
    if is_first():
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_forever(folder: Path) -> None:
    """Say that the work has begun."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_a_process_that_nobody_started_is_alone(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("RANK", "3")  # a variable that other programs use, too
    assert (ranks(), is_first(), as_the_first_says(lambda: 5)) == (None, True, 5)


def test_a_process_that_torchrun_started_knows_its_number(monkeypatch):
    variables = {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert ranks() == Ranks(rank=5, n_ranks=8, n_local=4)
    assert not is_first()


def test_all_processes_do_the_work_and_the_first_one_writes_and_speaks(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:  # the port that other programs would use
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        own, said, threads = run_on_ranks(2, told, tmp_path, factor=7)
    assert (own, said) == (Ranks(0, 2, 2), 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 heard 7", "1 heard 7", "written by 0"]
    assert threads == os.environ.get("OMP_NUM_THREADS", str(max(1, os.cpu_count() // 2)))
    assert ranks() is None


def test_an_error_of_one_process_ends_all_and_is_raised_as_it_was(capfd):
    with pytest.raises(ConfigError, match=r"^Expected 3 modes, got 2\.$") as caught:
        run_on_ranks(2, refuse, "P")
    assert caught.value.key == "P"
    assert "in refuse" in str(caught.value.__cause__)  # where in the other process
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_killed_ends_the_others(capfd):
    with pytest.raises(RuntimeError, match=r"all 2 processes to finish, got: process 1 terminated with signal SIGKILL"):
        run_on_ranks(2, vanish)
    assert capfd.readouterr() == ("", "")


def test_a_request_to_terminate_leaves_no_process_behind(tmp_path):
    def terminate() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    with interrupted_by_termination(), pytest.raises(KeyboardInterrupt):
        run_on_ranks(1, wait_forever, tmp_path)
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
