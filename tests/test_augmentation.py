"""Augmentation: each image becomes one of the windows it may become; all are reached, and the seed decides which."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.augmentation import Augmentation, parse
from kdbench.errors import BadInput, UnknownName


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int, channels: int = 2, height: int = 4, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, (batch, channels, height, width), generator=generator(seed), dtype=torch.uint8)


def windows(image: torch.Tensor, padding: int, flips: tuple[bool, ...]) -> list[bytes]:
    """Every window of the padded image, by plain slicing."""
    pixels = image.numpy()
    height, width = pixels.shape[1:]
    padded = np.zeros((pixels.shape[0], height + 2 * padding, width + 2 * padding), dtype=pixels.dtype)
    padded[:, padding : padding + height, padding : padding + width] = pixels
    return [
        (window[:, :, ::-1] if flip else window).tobytes()
        for y in range(2 * padding + 1)
        for x in range(2 * padding + 1)
        for window in [padded[:, y : y + height, x : x + width]]
        for flip in flips
    ]


@settings(deadline=None)
@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    padding=st.integers(1, 3),
    flip=st.booleans(),
    floating=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_each_output_is_a_window_of_its_own_input(
    batch, channels, height, width, padding, flip, floating, seed
) -> None:
    inputs = images(batch, channels, height, width, seed)
    if floating:
        inputs = inputs.float() / 7
    before = inputs.clone()
    outputs = parse([f"crop[padding={padding}]", *(["flip"] if flip else [])])(inputs, generator(seed))
    assert torch.equal(inputs, before)
    assert outputs.shape == inputs.shape
    assert outputs.dtype == inputs.dtype
    for image, output in zip(inputs, outputs, strict=True):
        assert output.contiguous().numpy().tobytes() in windows(image, padding, (False, True) if flip else (False,))


def test_every_offset_and_both_flips_are_reached_about_equally_often() -> None:
    image = images(1)
    outputs = parse(["crop[padding=1]", "flip"])(image.expand(3600, -1, -1, -1), generator())
    found = [output.contiguous().numpy().tobytes() for output in outputs]
    possible = windows(image[0], 1, (False, True))
    assert len(set(possible)) == 18
    assert set(found) == set(possible)
    counts = [found.count(window) for window in possible]
    assert min(counts) > 150  # of 200; the standard deviation is 14
    assert max(counts) < 250


def test_default_padding_is_four() -> None:
    image = images(1)
    outputs = parse(["crop"])(image.expand(2000, -1, -1, -1), generator())
    assert {output.contiguous().numpy().tobytes() for output in outputs} == set(windows(image[0], 4, (False,)))


def test_flip_leaves_or_mirrors_each_image() -> None:
    inputs = images(400)
    outputs = parse(["flip"])(inputs, generator())
    mirrored = [torch.equal(output, image.flip(-1)) for image, output in zip(inputs, outputs, strict=True)]
    kept = [torch.equal(output, image) for image, output in zip(inputs, outputs, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 160 < sum(mirrored) < 240


def test_the_generator_decides() -> None:
    augmentation, inputs = parse(["crop[padding=2]", "flip"]), images(50)
    first = augmentation(inputs, generator(1))
    torch.manual_seed(5)
    assert torch.equal(first, augmentation(inputs, generator(1)))
    assert not torch.equal(first, augmentation(inputs, generator(2)))
    assert torch.equal(first, augmentation(inputs.float(), generator(1)).to(torch.uint8))


def test_the_global_random_state_is_not_touched() -> None:
    before = torch.get_rng_state()
    parse(["crop", "flip"])(images(4), generator())
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_the_identity() -> None:
    inputs, drawn = images(3), generator()
    assert parse([]) == Augmentation()
    assert parse([])(inputs, drawn) is inputs
    assert torch.equal(drawn.get_state(), generator().get_state())


def test_transforms_are_applied_in_order() -> None:
    inputs, drawn = images(30), generator(4)
    by_hand = parse(["flip"])(parse(["crop"])(inputs, drawn), drawn)
    assert torch.equal(parse(["crop", "flip"])(inputs, generator(4)), by_hand)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'flip'"):
        parse(["flop"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("crop[padding=0]", "augmentation 'crop': padding='0'"),
        ("crop[padding=1.5]", "augmentation 'crop': padding='1.5'"),
        ("crop[pad=4]", "has no parameter 'pad'"),
        ("crop[fast]", "has no flag 'fast'"),
        ("flip[p=0.5]", "has no parameter 'p'"),
        ("crop[padding=4", "cannot read"),
    ],
)
def test_bad_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse([spec])
    assert message in str(caught.value)


def test_only_images_can_be_cropped() -> None:
    with pytest.raises(BadInput, match=r"not inputs \[2, 7\]"):
        parse(["crop"])(torch.zeros(2, 7), generator())
