"""Four ways in which pictures get worse, in five severities each.

The definitions are those of Hendrycks & Dietterich 2019 (arXiv:1903.12261), the constants those of their CIFAR-10-C (32
pixels a side; used here up to 64) and ImageNet-C (224; used above 64), from github.com/hendrycks/robustness. Their
constants are for values from 0 to 255: here `peak`, the largest value that the pictures have, takes the place of 255.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SMALL = 64  # pixels a side
_SIGMAS = {True: (0.04, 0.06, 0.08, 0.09, 0.10), False: (0.08, 0.12, 0.18, 0.26, 0.38)}  # of noise; small or not
_RADII = {True: (0.4, 0.6, 0.7, 0.8, 1.0), False: (1.0, 2.0, 3.0, 4.0, 6.0)}
_CONTRASTS = {True: (0.75, 0.5, 0.4, 0.3, 0.15), False: (0.4, 0.3, 0.2, 0.1, 0.05)}
_QUALITIES = {True: (80, 65, 58, 50, 40), False: (25, 18, 15, 10, 7)}

# Images uint8 [batch, channels, height, width], their peak, a severity of 1 to 5, and a source of randomness, to such
# images: the same whatever the number of threads.
ImageCorruption = Callable[[Tensor, int, int, torch.Generator], Tensor]


def gaussian_noise(images: Tensor, peak: int, severity: int, random: torch.Generator) -> Tensor:
    """Normal noise, independent for each number."""
    noise = torch.randn(images.shape, generator=random)
    return _whole(images + noise * _SIGMAS[_small(images)][severity - 1] * peak, peak)


def gaussian_blur(images: Tensor, peak: int, severity: int, random: torch.Generator) -> Tensor:
    """A Gaussian filter of so many pixels' standard deviation, cut off at four of them."""
    from scipy.ndimage import gaussian_filter

    radius = _RADII[_small(images)][severity - 1]
    blurred = gaussian_filter(images.numpy().astype(np.float32), sigma=(0, 0, radius, radius), mode="nearest")
    return _whole(torch.from_numpy(blurred), peak)


def contrast(images: Tensor, peak: int, severity: int, random: torch.Generator) -> Tensor:
    """Values brought nearer to their mean, by picture and channel."""
    values = images.double()
    mean = values.mean(dim=(2, 3), keepdim=True)
    return _whole(mean + (values - mean) * _CONTRASTS[_small(images)][severity - 1], peak)


def jpeg(images: Tensor, peak: int, severity: int, random: torch.Generator) -> Tensor:
    """Written as JPEG and read again: as colours, where there are three channels, else each channel as grey."""
    quality = _QUALITIES[_small(images)][severity - 1]
    batch, channels, height, width = images.shape
    full = (images.double() * (255 / peak)).round().to(torch.uint8)
    if channels == 3:
        pictures = full.permute(0, 2, 3, 1).contiguous().numpy()
        read = torch.from_numpy(np.stack([_reread(picture, quality) for picture in pictures])).permute(0, 3, 1, 2)
    else:
        pictures = full.reshape(batch * channels, height, width).numpy()
        read = torch.from_numpy(np.stack([_reread(picture, quality) for picture in pictures])).reshape(images.shape)
    return _whole(read.double() * (peak / 255), peak)


IMAGE_CORRUPTIONS: Mapping[str, ImageCorruption] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "jpeg": jpeg,
}


def _small(images: Tensor) -> bool:
    return max(images.shape[2:]) <= SMALL


def _whole(values: Tensor, peak: int) -> Tensor:
    return values.round().clamp(0, peak).to(torch.uint8).contiguous()


def _reread(picture: np.ndarray, quality: int) -> np.ndarray:
    """Of uint8 [height, width, 3] or [height, width]."""
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "JPEG", quality=quality)
    return np.asarray(Image.open(written))
