"""The network: what it is before anything is learned, and what nothing that is learned can make it depend on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_optics import amplitude_of, asked_change, beam, random_waves, smooth_object, windows_of
from torch import nn

import shapecheck
from ptycho_torch.exposures import CanvasSizes, Exposures, exit_wave_changes
from ptycho_torch.unrolled import UnrolledNetwork, light_on
from shapecheck import ContractError

SIDES = CanvasSizes(3, 26, 33)


def patterns_of(objects: np.ndarray, probe: np.ndarray, starts: np.ndarray) -> np.ndarray:
    places = windows_of(starts, objects.shape[1:], probe.shape[-1])
    return np.stack([amplitude_of(objects[canvas, rows, columns] * probe) for canvas, rows, columns in places])


def make_exposures(
    canvases: CanvasSizes = SIDES, each: int = 9, P: int = 2, N: int = 16, objects: np.ndarray | None = None
) -> Exposures:
    """Patterns of objects, at different whole pixels, with one probe."""
    rng, (count, rows, columns) = np.random.default_rng(0), canvases
    if objects is None:
        objects = np.stack([smooth_object(rows, columns, seed) for seed in range(count)])
    room = (rows - N + 1, columns - N + 1)
    corners = [np.unravel_index(rng.choice(math.prod(room), each, replace=False), room) for _ in range(count)]
    starts = np.concatenate([canvas * rows * columns + y * columns + x for canvas, (y, x) in enumerate(corners)])
    probe = beam(P, N, energy=(N / 2) ** 2)
    return Exposures(
        measured=torch.from_numpy(patterns_of(objects, probe, starts).astype(np.float32)),
        probes=torch.from_numpy(probe).expand(len(starts), P, N, N),
        slopes=torch.zeros(len(starts), 2),
        starts=torch.from_numpy(starts),
        canvases=canvases,
    )


def make_network(*, trained: bool = True) -> UnrolledNetwork:
    """A network; what it has to say of an object is nothing before it was trained, and here at random afterwards."""
    torch.manual_seed(0)
    network = UnrolledNetwork()
    for stage in network.stages if trained else ():
        nn.init.normal_(stage.out.weight, std=0.03)
    return network


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    """Equal but for the order in which sums were taken."""
    torch.testing.assert_close(first, second, atol=2e-4, rtol=1e-3)


# --- before anything is learned ------------------------------------------------------------------------------
def pie_in_a_loop(exposures: Exposures) -> np.ndarray:
    """Eight steps from flat objects, each from every fourth part of the patterns, or fewer parts of few patterns."""
    canvases, side = exposures.canvases, exposures.measured.shape[-1]
    each = len(exposures) // canvases.number
    n_parts = 4 if each >= 16 else max(each // 4, 1)
    objects = np.ones(canvases, np.complex128)
    places = windows_of(exposures.starts.numpy(), canvases[1:], side)
    probes, measured = exposures.probes.numpy().astype(np.complex128), exposures.measured.numpy()
    for turn in range(8):
        changes, lights = np.zeros(canvases, np.complex128), np.zeros(canvases)
        for canvas in range(canvases.number):
            mine = sorted(range(canvas * each, (canvas + 1) * each), key=lambda n: int(exposures.starts[n]))
            for rank, n in enumerate(mine):
                if math.floor(n_parts * math.modf(rank * (math.sqrt(5) - 1) / 2)[0]) != turn % n_parts:
                    continue
                _, rows, columns = places[n]
                dark = 1e-6 * (measured[n] ** 2).mean()
                change, _ = asked_change(probes[n] * objects[canvas, rows, columns], measured[n], dark)
                changes[canvas, rows, columns] += (probes[n].conj() * change).sum(axis=0)
                lights[canvas, rows, columns] += (np.abs(probes[n]) ** 2).sum(axis=0)
        brightest = (np.abs(probes) ** 2).sum(axis=1).max()
        objects += changes / (lights + 0.1 * brightest)
    return objects


@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize(("each", "N"), [(1, 16), (5, 16), (9, 13), (18, 16)])
def test_an_untrained_network_takes_plain_steps_of_pie_averaged_by_light(each, N, P, monkeypatch):
    exposures = make_exposures(each=each, P=P, N=N)
    monkeypatch.setattr("ptycho_torch.unrolled._long_waves", lambda _, light, __: torch.ones_like(light) + 0j)
    with torch.no_grad():
        found = make_network(trained=False)(exposures)
    np.testing.assert_allclose(found, pie_in_a_loop(exposures), atol=2e-3)


def test_the_true_objects_stay_as_they_are(monkeypatch):
    truth = np.stack([smooth_object(*SIDES[1:], seed) for seed in range(3)])
    exposures = make_exposures(objects=truth)
    monkeypatch.setattr("ptycho_torch.unrolled._long_waves", lambda *_: torch.from_numpy(truth))
    with torch.no_grad():
        found, mirrored = (
            make_network(trained=False)(shown) for shown in (exposures, replace(exposures, starts=mirror(exposures)))
        )
    np.testing.assert_allclose(found, truth, atol=2e-3)
    assert np.abs(mirrored.numpy() - truth).max() > 0.05  # the line above can fail


def mirror(exposures: Exposures) -> torch.Tensor:
    """The starts of the patches as if every canvas were turned by half a turn."""
    _, rows, columns = exposures.canvases
    side = exposures.measured.shape[-1]
    pixels = exposures.starts % (rows * columns)
    last = (rows - side) * columns + columns - side
    return exposures.starts - pixels + (last - pixels)


WAVES = {
    "ramp": lambda y, x: 0.12 * x - 0.06 * y,
    "defocus": lambda y, x: 0.004 * ((x - 20) ** 2 + (y - 15) ** 2),
    "saddle": lambda y, x: 0.008 * (x - 20) * (y - 15),
}


@pytest.mark.parametrize("wave", WAVES.values(), ids=WAVES.keys())
def test_long_waves_are_there_before_the_first_stage(wave):
    objects = 0.7 * np.exp(1j * wave(*np.mgrid[:26, :33]))[None].astype(np.complex64)
    exposures = make_exposures(CanvasSizes(1, 26, 33), each=120, P=1, objects=objects)
    network = make_network()
    network.stages = nn.ModuleList()
    found, light = network(exposures).numpy(), light_on(exposures).numpy()
    lit = light > 0.2 * light.max()
    np.testing.assert_allclose(np.abs(found[lit]), 0.7, rtol=1e-3)
    assert phase_error(found[lit], objects[lit]) < 0.4 * phase_error(np.ones_like(objects[lit]), objects[lit])


@pytest.mark.parametrize("wave", WAVES.values(), ids=WAVES.keys())
def test_a_gap_beside_the_beam_takes_little_from_the_long_waves(wave):
    objects = 0.7 * np.exp(1j * wave(*np.mgrid[:26, :33]))[None].astype(np.complex64)
    exposures = make_exposures(CanvasSizes(1, 26, 33), each=120, P=1, objects=objects)
    bad = torch.zeros(16, 16, dtype=torch.bool)
    bad[:, 9:11] = True
    network = make_network()
    network.stages = nn.ModuleList()
    light = light_on(exposures).numpy()
    lit = light > 0.2 * light.max()
    believed, left_out = (
        network(replace(exposures, measured=exposures.measured.masked_fill(bad, 0), bad=mask)).numpy()[lit]
        for mask in (None, bad)
    )
    np.testing.assert_allclose(np.abs(left_out), 0.7, rtol=0.1)
    nothing = phase_error(np.ones_like(objects[lit]), objects[lit])
    assert phase_error(left_out, objects[lit]) < 0.75 * nothing
    assert phase_error(believed, objects[lit]) > nothing


def phase_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square difference of the phases, but for a global one, radians."""
    return float(np.std(np.angle(found * truth.conj() * np.vdot(found, truth))))


def test_a_single_pattern_of_an_empty_field_leaves_its_object_flat():
    exposures = make_exposures(CanvasSizes(1, 16, 16), each=1, objects=np.ones((1, 16, 16), np.complex64))
    found = make_network(trained=False)(exposures)
    torch.testing.assert_close(found, torch.ones_like(found), atol=5e-3, rtol=0)


# --- what nothing depends on ----------------------------------------------------------------------------------
def test_what_stands_at_bad_pixels_changes_nothing():
    exposures, network = make_exposures(each=9), make_network()
    bad = torch.zeros(exposures.measured.shape[1:], dtype=torch.bool)
    bad[7:9, 6:10] = True
    spoilt = replace(exposures, measured=exposures.measured.masked_fill(bad, 5.0))
    one, other = (network(replace(shown, bad=bad)) for shown in (exposures, spoilt))
    assert torch.equal(one, other)
    assert not torch.allclose(network(spoilt), network(exposures), atol=1e-2)


def test_the_order_of_the_patterns_on_a_canvas_does_not_matter():
    exposures, network = make_exposures(each=18), make_network()
    orders = [18 * canvas + torch.randperm(18, generator=torch.Generator().manual_seed(canvas)) for canvas in range(3)]
    close(network(exposures.choose(torch.cat(orders))), network(exposures))


def rearranged(exposures: Exposures, order: list[int]) -> Exposures:
    """The canvases of these exposures in another order, or some of them."""
    each, pixels = len(exposures) // exposures.canvases.number, math.prod(exposures.canvases[1:])
    chosen = torch.cat([torch.arange(each) + each * canvas for canvas in order])
    few = exposures.choose(chosen)
    starts = few.starts % pixels + pixels * torch.arange(len(order)).repeat_interleave(each)
    return replace(few, starts=starts, canvases=exposures.canvases._replace(number=len(order)))


@pytest.mark.parametrize("each", [1, 9, 18])
@pytest.mark.parametrize("order", [[2, 0, 1], [1], [0, 2]], ids=str)
def test_canvases_know_nothing_of_each_other(order, each):
    exposures, network = make_exposures(each=each), make_network()
    light = torch.tensor([1.0, 5.0, 0.3]).repeat_interleave(each)  # of a probe of its own on each canvas
    measured, probes = light.view(-1, 1, 1) * exposures.measured, light.view(-1, 1, 1, 1) * exposures.probes
    exposures = replace(exposures, measured=measured, probes=probes)
    close(network(rearranged(exposures, order)), network(exposures)[order])


@pytest.mark.parametrize("chunk", [1, 5, 27, 1000])
def test_results_do_not_depend_on_how_many_patterns_are_worked_on_at_a_time(chunk, monkeypatch):
    exposures, network = make_exposures(each=18), make_network()
    usual, light = network(exposures), light_on(exposures)
    monkeypatch.setattr("ptycho_torch.unrolled._CHUNK", chunk)
    close(network(exposures), usual)
    torch.testing.assert_close(light_on(exposures), light)


@pytest.mark.parametrize("scale", [1e-3, 300.0])
def test_the_unit_of_the_light_does_not_matter(scale):
    exposures, network = make_exposures(), make_network()
    brighter = replace(exposures, measured=scale * exposures.measured, probes=scale * exposures.probes)
    close(network(brighter), network(exposures))


def test_the_order_and_the_phases_of_the_modes_do_not_matter():
    exposures, network = make_exposures(P=3), make_network()
    turns = torch.polar(torch.ones(3, 1, 1), torch.tensor([0.4, -1.9, 3.0]).view(3, 1, 1))
    other = replace(exposures, probes=(exposures.probes * turns)[:, [2, 0, 1]])
    close(network(other), network(exposures))


def test_a_stage_turns_with_the_phase_of_the_object():
    """What is learned cannot know an absolute phase, which no pattern tells."""
    stage, turn = make_network().stages[0], torch.polar(torch.tensor(1.0), torch.tensor(2.1))
    objects, asked = random_waves(2, 15, 18, seed=0), 0.1 * random_waves(2, 15, 18, seed=1)
    memory, light = torch.randn(2, 2, 15, 18), torch.rand(2, 15, 18)
    corrected, remembered = stage(objects, memory, asked, light)
    turned, remembered_turned = stage(turn * objects, memory, turn * asked, light)
    torch.testing.assert_close(turned, turn * corrected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(remembered_turned, remembered, atol=1e-5, rtol=1e-4)
    assert (corrected - objects).abs().max() > 0.1


@pytest.mark.parametrize("sides", [(26, 33), (25, 32), (27, 27), (16, 40)], ids=str)
def test_canvases_of_any_sides_are_corrected_in_place(sides):
    """Even or odd, what is learned moves nothing: the corrections of a mirrored canvas are not those of another."""
    exposures = make_exposures(CanvasSizes(2, *sides))
    found = make_network()(exposures)
    assert found.shape == (2, *sides)
    assert torch.isfinite(torch.view_as_real(found)).all()


# --- what is learned ----------------------------------------------------------------------------------------
def misfit(network: UnrolledNetwork, exposures: Exposures) -> torch.Tensor:
    exit_waves = exposures.cut(network(exposures)).unsqueeze(1) * exposures.probes
    return exit_wave_changes(exit_waves, exposures.measured)[1].mean()


@pytest.mark.parametrize("each", [1, 4, 18])
def test_every_parameter_learns_from_the_misfit(each):
    network = make_network()
    misfit(network, make_exposures(each=each)).backward()
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_few_steps_of_learning_explain_the_patterns_better():
    network, exposures = make_network(trained=False), make_exposures(each=18)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    misfits = []
    for _ in range(12):
        optimiser.zero_grad()
        misfits.append(misfit(network, exposures))
        misfits[-1].backward()
        optimiser.step()
    assert misfits[-1] < 0.8 * misfits[0]


DARK = {
    "detector-pixels": lambda measured, probes: (measured[:, 5:].fill_(0), probes),
    "one-pattern": lambda measured, probes: (measured[1].fill_(0), probes),
    "all-patterns": lambda measured, probes: (measured.fill_(0), probes),
    "one-mode": lambda measured, probes: (measured, probes[:, 1].fill_(0)),
    "one-probe": lambda measured, probes: (measured, probes[4].fill_(0)),
}


@pytest.mark.parametrize("darken", DARK.values(), ids=DARK.keys())
def test_without_light_results_and_gradients_are_finite(darken):
    exposures, network = make_exposures(), make_network()
    dark = replace(exposures, measured=exposures.measured.clone(), probes=exposures.probes.clone())
    darken(dark.measured, dark.probes)
    assert torch.isfinite(torch.view_as_real(network(dark).detach())).all()
    misfit(network, dark).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_nothing_is_said_of_what_no_light_fell_on():
    exposures = make_exposures(each=9, P=1)
    y, x = np.mgrid[:16, :16] - 8
    aperture = torch.from_numpy((x**2 + y**2 < 25).astype(np.float32))
    exposures = replace(exposures, probes=exposures.probes * aperture)
    light = light_on(exposures)
    with torch.no_grad():
        change = (make_network()(exposures) - make_network(trained=False)(exposures)).abs()
    unlit = light == 0
    assert 0.2 < unlit.float().mean() < 0.9
    assert change[unlit].max() == 0
    assert change[~unlit].max() > 0.01


# --- the light ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("P", [1, 2])
@pytest.mark.parametrize("each", [1, 18])
def test_light_is_what_all_probes_shed_on_a_pixel(P, each):
    exposures = make_exposures(each=each, P=P)
    expected = np.zeros(exposures.canvases)
    places = windows_of(exposures.starts.numpy(), exposures.canvases[1:], 16)
    for (canvas, rows, columns), modes in zip(places, exposures.probes.numpy(), strict=True):
        expected[canvas, rows, columns] += (np.abs(modes) ** 2).sum(axis=0)
    np.testing.assert_allclose(light_on(exposures), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.violation
def test_exposures_whose_parts_do_not_fit_together_are_refused():
    exposures, network = make_exposures(), make_network()
    network(exposures)
    with shapecheck.mode("off"):
        spoilt = replace(exposures, slopes=exposures.slopes[:-1])
    for use in (network, light_on):
        with pytest.raises(ContractError, match=r"exposures\.slopes"):
            use(spoilt)
