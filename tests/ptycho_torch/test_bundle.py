"""Bundles: what comes back is what was written, and everything else is refused by name.

The format is written down here a second time, independently, so that files can be forged.
"""

import hashlib
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from ptycho_torch.bundle import BundleConfigs, BundleError, load_bundle, save_bundle, written_atomically
from ptycho_torch.config_params import ConfigError, DataConfig, ModelConfig, TrainingConfig
from ptycho_torch.model import PtychoModel, normalise_probe

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
A_WEIGHT = "network.stages.2.first.weight"


def make_configs(gridsize: int = 2, N: int = 16, P: int = 2) -> BundleConfigs:
    shape = {"gridsize": gridsize, "C": gridsize**2}
    return BundleConfigs(
        data=DataConfig(
            **shape, N=N, n_groups=5, neighbor_count=6, max_neighbor_distance=4.5, nphotons=1e4 / 3, seed=1
        ),
        model=ModelConfig(**shape, N=N, P=P, max_neighbor_distance=4.5),
        training=TrainingConfig(**shape, learning_rate=3e-4, loss="mae"),
    )


def make_model(configs: BundleConfigs, seed: int = 0) -> PtychoModel:
    N, P = configs.model.N, configs.model.P
    torch.manual_seed(seed)
    return PtychoModel(configs.model, normalise_probe(torch.randn(P, N, N, dtype=torch.complex64)))


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    configs = make_configs()
    return save_bundle(tmp_path / "model.ptycho", make_model(configs), configs)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def signed(header: dict[str, Any], weights: bytes) -> bytes:
    """The header as JSON with checksums that hold, whatever else it says."""
    statements = {key: value for key, value in header.items() if key != "sha256"}
    canonical = json.dumps(statements, sort_keys=True).encode()
    sums = {"statements": hashlib.sha256(canonical).hexdigest(), "weights": hashlib.sha256(weights).hexdigest()}
    return json.dumps(statements | {"sha256": sums}).encode()


def forge(path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """Rewrite a bundle after an edit of header and tensors, with checksums that hold."""
    members = members_of(path)
    header, tensors = json.loads(members[CONFIG]), safetensors.torch.load(members[WEIGHTS])
    edit(header, tensors)
    weights = safetensors.torch.save(tensors)
    return write_zip(path.with_name("forged.ptycho"), {WEIGHTS: weights, CONFIG: signed(header, weights)})


def test_bundle_loader_returns_modules(tmp_path):
    for gridsize, N, P in ((1, 16, 1), (2, 16, 2), (2, 13, 1)):
        configs = make_configs(gridsize, N, P)
        model = make_model(configs)
        bundle = load_bundle(save_bundle(tmp_path / "model.ptycho", model, configs))
        assert isinstance(bundle.model, nn.Module)
        assert type(bundle.model) is PtychoModel
        assert not bundle.model.training
        assert bundle.model.config == configs.model
        assert bundle.configs == configs
        loaded = bundle.model.state_dict()
        assert loaded.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert loaded[name].dtype == tensor.dtype
            assert torch.equal(loaded[name], tensor), name
        assert all(parameter.requires_grad and not parameter.is_meta for parameter in bundle.model.parameters())


def test_outputs_before_and_after_a_round_trip_are_equal_bit_for_bit(tmp_path):
    configs = make_configs()
    model = make_model(configs).eval()
    nn.init.normal_(model.network.stages[3].out.weight, std=0.1)
    images, scale = torch.rand(3, 4, 16, 16), torch.full((3, 1, 1, 1), 0.5)
    loaded = load_bundle(save_bundle(tmp_path / "model.ptycho", model, configs)).model
    assert torch.equal(loaded.forward_predict(images, scale), model.forward_predict(images, scale))


def test_the_same_model_is_written_as_the_same_bytes(tmp_path):
    configs = make_configs()
    first, second = (save_bundle(tmp_path / name, make_model(configs), configs) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_an_unedited_forgery_loads(bundle_path):
    """The accepting twin of every rejection below that forges a file."""
    assert load_bundle(forge(bundle_path, lambda header, tensors: None)).configs == make_configs()


def _add(header, tensors):
    tensors["network.extra"] = torch.zeros(2)


def _drop(header, tensors):
    del tensors["probe"]


def _reshape(header, tensors):
    tensors[A_WEIGHT] = tensors[A_WEIGHT].flatten()


def _transpose(header, tensors):
    tensors["probe"] = tensors["probe"][:1].clone()


def _widen(header, tensors):
    tensors[A_WEIGHT] = tensors[A_WEIGHT].double()


def _drop_phase(header, tensors):
    tensors["probe"] = tensors["probe"].real.clone()


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (_add, r"missing: none; extra: \['network.extra'\]"),
        (_drop, r"missing: \['probe'\]; extra: none"),
        (_reshape, rf"tensor '{A_WEIGHT}' to be float32 \(24, 32, 3, 3\), got float32 \(6912,\)"),
        (_transpose, r"tensor 'probe' to be complex64 \(2, 16, 16\), got complex64 \(1, 16, 16\)"),
        (_widen, rf"tensor '{A_WEIGHT}' to be float32 .*, got float64"),
        (_drop_phase, r"tensor 'probe' to be complex64 .*, got float32"),
    ],
    ids=["extra", "missing", "reshaped", "other-size", "float64", "real-probe"],
)
def test_tensors_that_are_not_the_models_are_refused_by_name(bundle_path, edit, complaint):
    with pytest.raises(BundleError, match=complaint):
        load_bundle(forge(bundle_path, edit))


def set_header(*path: str, value: Any) -> Callable:
    def edit(header, tensors):
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (set_header("contract_version", value=1), "contract_version 2, got 1"),
        (set_header("contract_version", value=3), "contract_version 2, got 3"),
        (set_header("contract_version", value=True), "contract_version 2, got True"),
        (set_header("format", value="ptycho-torch bundle 9"), "format 'ptycho-torch bundle 1', got 'ptycho"),
        (set_header("author", value="me"), "top level.*got author"),
        (set_header("configs", "secret", value={}), "'configs' of config.json.*secret"),
        (set_header("configs", "model", "depth", value=3), "ModelConfig knows, got 'depth'"),
        (set_header("configs", "model", "N", value="16"), "N to be an integer"),
        (set_header("configs", "model", "C", value=1), r"C to be gridsize\*\*2 = 4, got C=1"),
        (set_header("configs", "data", "N", value=32), "N of DataConfig to be that of ModelConfig, 16, got 32"),
        (set_header("configs", "model", value=[]), "valid configurations"),
        (set_header("configs", value=[]), "'configs' of config.json"),
        (set_header("package_version", value=1), "package_version to be a string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_headers_that_say_something_else_are_refused(bundle_path, edit, complaint):
    with pytest.raises(BundleError, match=complaint):
        load_bundle(forge(bundle_path, edit))


def test_a_configuration_without_one_of_its_keys_is_refused_by_name(bundle_path):
    with pytest.raises(BundleError, match="DataConfig to hold 'seed'"):
        load_bundle(forge(bundle_path, lambda header, tensors: header["configs"]["data"].pop("seed")))


def test_sizes_beyond_all_reason_are_refused_before_memory_is_taken(bundle_path):
    def edit(header, tensors):
        for part in ("data", "model"):
            header["configs"][part]["N"] = 2**24  # buffers of 2**48 pixels, petabytes

    with pytest.raises(BundleError, match=r"float32 \(16777216, 16777216\)|complex64 \(2, 16777216, 16777216\)"):
        load_bundle(forge(bundle_path, edit))


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.97, 0.9999])
def test_a_truncated_bundle_is_refused(bundle_path, fraction):
    content = bundle_path.read_bytes()
    bundle_path.write_bytes(content[: math.floor(fraction * len(content))])
    with pytest.raises(BundleError, match="truncated or damaged"):
        load_bundle(bundle_path)


def test_a_flipped_bit_is_refused_or_changes_nothing(bundle_path):
    """Some bits of a zip archive mean nothing (dates); every other one must be missed."""
    content = bytearray(bundle_path.read_bytes())
    original, refused = load_bundle(bundle_path), 0
    expected = original.model.state_dict()
    places = [*range(0, len(content), len(content) // 60), *range(len(content) - 200, len(content), 7)]
    for place in places:
        content[place] ^= 0x10
        bundle_path.write_bytes(content)
        content[place] ^= 0x10
        try:
            loaded = load_bundle(bundle_path)
        except BundleError:
            refused += 1
            continue
        assert (loaded.configs, loaded.package_version) == (original.configs, original.package_version)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert refused > 0.8 * len(places)


@pytest.mark.parametrize("member", [WEIGHTS, CONFIG])
def test_content_that_does_not_match_its_checksum_is_refused(bundle_path, member):
    members = members_of(bundle_path)
    if member == CONFIG:
        members[CONFIG] = members[CONFIG].replace(b'"seed": 1', b'"seed": 2')
    else:
        members[WEIGHTS] = members[WEIGHTS][:-1] + bytes([members[WEIGHTS][-1] ^ 1])
    with pytest.raises(BundleError, match=f"{member} with the recorded checksum"):
        load_bundle(write_zip(bundle_path, members))


@pytest.mark.parametrize(
    "names",
    [
        (WEIGHTS,),
        (CONFIG,),
        (),
        (WEIGHTS, CONFIG, "README"),
        (f"../{WEIGHTS}", CONFIG),
        (f"/{WEIGHTS}", CONFIG),
        (WEIGHTS, CONFIG, "../../etc/passwd"),
        (WEIGHTS, CONFIG, "weights.pt"),
    ],
    ids=["no-config", "no-weights", "empty", "extra", "traversal", "absolute", "extra-traversal", "pickle"],
)
def test_an_archive_with_other_members_is_refused_and_nothing_is_unpacked(bundle_path, names):
    members = members_of(bundle_path)
    by_end = {name: members.get(name.rsplit("/", 1)[-1], b"anything") for name in names}
    before = {path.name for path in bundle_path.parent.rglob("*")}
    with pytest.raises(BundleError, match=r"exactly the members config\.json and weights\.safetensors"):
        load_bundle(write_zip(bundle_path, by_end))
    assert {path.name for path in bundle_path.parent.rglob("*")} == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_member_twice_is_refused(bundle_path):
    with zipfile.ZipFile(bundle_path, "a") as archive:
        archive.writestr(CONFIG, b"{}")
    with pytest.raises(BundleError, match="exactly the members"):
        load_bundle(bundle_path)


def test_a_compressed_member_is_refused_because_it_could_grow_without_bound(bundle_path):
    members = members_of(bundle_path)
    assert load_bundle(write_zip(bundle_path, members)).configs == make_configs()
    with pytest.raises(BundleError, match="stored uncompressed"):
        load_bundle(write_zip(bundle_path, members, zipfile.ZIP_DEFLATED))


def test_a_config_of_more_than_a_megabyte_is_refused_unread(bundle_path):
    members = members_of(bundle_path) | {CONFIG: b" " * (2**20 + 1)}
    with pytest.raises(BundleError, match=r"config\.json of at most 1048576 bytes, got 1048577"):
        load_bundle(write_zip(bundle_path, members))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (b"", "config.json to be JSON"),
        (b"\xff\xfe", "config.json to be JSON"),
        (b"[" * 200_000, "config.json to be JSON"),
        (b"[]", "top level of config.json"),
        (b'"text"', "top level of config.json"),
        (b'{"format": 1, "format": 2}', "each key of config.json once"),
    ],
    ids=["empty", "no-text", "deep", "list", "string", "repeated-key"],
)
def test_a_config_that_is_no_header_is_refused(bundle_path, config, complaint):
    members = members_of(bundle_path) | {CONFIG: config}
    with pytest.raises(BundleError, match=complaint):
        load_bundle(write_zip(bundle_path, members))


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        pickle.dumps({"a": 1}),
        safetensors.torch.save({"probe": torch.zeros(4)})[:-3],
    ],
    ids=["empty", "huge-header", "no-tensors", "pickle", "cut"],
)
def test_weights_that_are_no_safetensors_of_this_model_are_refused(bundle_path, weights):
    header = json.loads(members_of(bundle_path)[CONFIG])
    with pytest.raises(BundleError, match=r"weights.safetensors to hold tensors|exactly the model's tensors"):
        load_bundle(write_zip(bundle_path, {WEIGHTS: weights, CONFIG: signed(header, weights)}))


def test_loading_executes_nothing_that_is_in_a_file(tmp_path):
    target = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(target),))

    for content in (pickle.dumps(Bomb()), _torch_saved(Bomb())):
        path = tmp_path / "model.ptycho"
        path.write_bytes(content)
        with pytest.raises(BundleError):
            load_bundle(path)
        assert not target.exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert target.exists()  # the bomb was live


def _torch_saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_what_is_no_file_is_refused_as_such(tmp_path):
    with pytest.raises(BundleError, match="got no such file"):
        load_bundle(tmp_path / "nothing.ptycho")
    with pytest.raises(BundleError, match="got a directory"):
        load_bundle(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="zip archive"):
        load_bundle(tmp_path / "text")


def test_a_bundle_error_names_its_file(tmp_path):
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path / "nothing.ptycho")
    assert caught.value.path == tmp_path / "nothing.ptycho"
    assert str(caught.value).startswith(str(caught.value.path))


def test_saving_a_model_under_another_configuration_is_refused(tmp_path):
    configs = make_configs()
    with pytest.raises(BundleError, match="a model built with the given ModelConfig"):
        save_bundle(tmp_path / "model.ptycho", make_model(make_configs(P=1)), configs)
    assert not list(tmp_path.iterdir())


def test_configurations_that_disagree_are_refused():
    one, other = make_configs(), make_configs(N=20)
    assert BundleConfigs(one.data, one.model, one.training) == one
    with pytest.raises(ConfigError, match="N of DataConfig to be that of ModelConfig, 16, got 20"):
        BundleConfigs(other.data, one.model, one.training)


def fill_up(path: Path) -> None:
    with written_atomically(path) as stream:
        stream.write(b"half")
        raise OSError(28, "disk full")


def test_a_write_that_fails_leaves_the_old_file_and_no_debris(bundle_path):
    before = bundle_path.read_bytes()
    with pytest.raises(OSError, match="disk full"):
        fill_up(bundle_path)
    assert bundle_path.read_bytes() == before
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def test_a_bundle_is_written_into_folders_that_do_not_exist_yet(tmp_path):
    configs = make_configs()
    path = save_bundle(tmp_path / "a" / "b" / "model.ptycho", make_model(configs), configs)
    assert load_bundle(path).configs == configs
