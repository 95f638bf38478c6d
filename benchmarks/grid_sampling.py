"""The operators of `ptycho_torch.helper` made of `grid_sample`: the baseline of `operators`.

Written as public implementations of PtychoPINN do it: a grid of coordinates, normalised to -1..1, for every image; real
and imaginary parts sampled one after the other; a whole canvas for every patch, translated there, in merging; the
canvas of a group repeated for every patch, translated whole and cut afterwards, in extraction.
"""

import torch
from torch import Tensor
from torch.nn import functional


def translation(images: Tensor, offsets: Tensor) -> Tensor:
    n, h, w = images.shape
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    x = (columns - offsets[:, 0, 0].view(n, 1, 1)) * 2 / (w - 1) - 1
    y = (rows - offsets[:, 0, 1].view(n, 1, 1)) * 2 / (h - 1) - 1
    grid = torch.stack((x, y), dim=-1)

    def sample(part: Tensor) -> Tensor:
        return functional.grid_sample(part.unsqueeze(1), grid, mode="bilinear", align_corners=True)

    if images.is_complex():
        return torch.complex(sample(images.real.contiguous()), sample(images.imag.contiguous()))
    return sample(images)


def merge(patches: Tensor, offsets: Tensor, canvas_size: int, weights: Tensor) -> Tensor:
    shape = (*patches.shape[:2], canvas_size, canvas_size)
    before = canvas_size // 2 - patches.shape[-1] // 2
    after = canvas_size - patches.shape[-1] - before
    waves, weights = (
        translation(functional.pad(t, (before, after) * 2).flatten(0, 1), -offsets.flatten(0, 1)).view(shape)
        for t in (patches, weights)
    )
    total = weights.sum(dim=1)
    mask = total > 1e-6 * total.amax(dim=(-2, -1), keepdim=True)
    return torch.where(mask, (weights * waves).sum(dim=1) / total.clamp_min(1e-12), 0.0)


def extract(region: Tensor, offsets: Tensor, patch_size: int) -> Tensor:
    copies = region.expand(-1, offsets.shape[1], -1, -1)
    moved = translation(copies.flatten(0, 1), offsets.flatten(0, 1)).view(copies.shape)
    start = region.shape[-1] // 2 - patch_size // 2
    return moved[..., start : start + patch_size, start : start + patch_size].contiguous()


def diffract(waves: Tensor) -> Tensor:
    far = torch.fft.fftshift(torch.fft.fft2(waves, norm="ortho"), dim=(-2, -1))
    return far.abs().square().sum(dim=2).sqrt()
