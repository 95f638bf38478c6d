"""The losses against SciPy, against recorded vectors and by what a loss must obey."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson

import shapecheck
from ptycho_torch.losses import mae_loss, poisson_loss


def make_counts(B: int = 3, C: int = 4, N: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.5, 300, (B, C, N, N))
    return rate, rng.poisson(rate)


def amplitude(intensity: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.sqrt(intensity).astype(np.float32))


@pytest.mark.parametrize(("B", "C"), [(3, 4), (1, 1), (2, 9)], ids=["3x4", "1x1", "2x9"])
def test_poisson_loss_is_the_negative_log_likelihood_of_counts(B, C):
    rate, counts = make_counts(B, C)
    expected = -poisson.logpmf(counts, rate).mean()
    assert poisson_loss(amplitude(rate), amplitude(counts)).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_losses_agree_with_the_recorded_vectors(loss, shared):
    recorded = np.load(shared / "reference" / "forward_model.npz")
    predicted, measured = (torch.from_numpy(recorded[f"loss__{name}"]) for name in ("pred", "raw"))
    key, scale = ("loss__poisson_amp", predicted[0].numel()) if loss is poisson_loss else ("loss__mae_amp", 1)
    for sample, expected in enumerate(recorded[key]):
        got = loss(predicted[sample : sample + 1], measured[sample : sample + 1]).item()
        # The recorded loss adds nothing to dark rates; ours adds a hundredth of a count.
        assert got == pytest.approx(expected / scale, rel=3e-2)


def test_mae_loss_is_the_mean_absolute_difference():
    rate, counts = make_counts()
    expected = np.abs(np.sqrt(rate) - np.sqrt(counts)).mean()
    assert mae_loss(amplitude(rate), amplitude(counts)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_no_other_prediction_is_better_than_the_measurement_itself(loss):
    measured = amplitude(make_counts()[1])
    at_best = loss(measured, measured)
    for factor in (0.9, 1.1):
        assert loss(measured * factor, measured) > at_best


@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_a_batch_costs_the_mean_of_its_halves(loss):
    predicted, measured = (amplitude(image) for image in make_counts(B=4))
    halves = [loss(predicted[part], measured[part]) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(loss(predicted, measured), sum(halves) / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_bad_pixels_cost_nothing_and_what_stands_there_does_not_matter(loss):
    rate, counts = make_counts()
    bad = np.zeros(rate.shape[-2:], bool)
    bad[3:5, 1:12] = bad[0, 7] = True
    predicted, measured = amplitude(rate).requires_grad_(), amplitude(counts)
    spoilt = measured.masked_fill(torch.from_numpy(bad), 40.0)
    cost = loss(predicted, spoilt, torch.from_numpy(bad))
    by_hand = {
        poisson_loss: -poisson.logpmf(counts, rate)[..., ~bad].mean(),
        mae_loss: np.abs(np.sqrt(rate) - np.sqrt(counts))[..., ~bad].mean(),
    }
    assert cost.item() == pytest.approx(by_hand[loss], rel=1e-3)
    assert abs(loss(predicted, spoilt).item() - cost.item()) > 0.1
    (gradient,) = torch.autograd.grad(cost, predicted)
    assert not gradient.numpy()[..., bad].any()
    assert gradient.numpy()[..., ~bad].all()


@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_a_mask_without_bad_pixels_is_no_mask(loss):
    predicted, measured = (amplitude(image) for image in make_counts())
    assert loss(predicted, measured, torch.zeros(16, 16, dtype=torch.bool)) == loss(predicted, measured)


def test_darkness_where_light_was_measured_costs_much_but_not_everything():
    measured = amplitude(make_counts()[1])
    dark = torch.zeros_like(measured, requires_grad=True)
    loss = poisson_loss(dark, measured)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(dark.grad).all()
    assert loss > 10 * poisson_loss(measured, measured)


@pytest.mark.violation
@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_losses_refuse_amplitudes_that_would_broadcast(loss):
    measured = amplitude(make_counts()[1])
    assert loss(measured, measured).shape == ()
    with pytest.raises(shapecheck.ContractError, match="measured"):
        loss(measured, measured[:1])
    with pytest.raises(shapecheck.ContractError, match="measured"):
        loss(measured, measured.double())


@pytest.mark.violation
@pytest.mark.parametrize("loss", [poisson_loss, mae_loss])
def test_losses_refuse_the_mask_of_another_detector(loss):
    measured = amplitude(make_counts()[1])
    assert loss(measured, measured, torch.eye(16, dtype=torch.bool)).shape == ()
    for bad in (torch.eye(15, dtype=torch.bool), torch.eye(16)):
        with pytest.raises(shapecheck.ContractError, match="bad"):
            loss(measured, measured, bad)
