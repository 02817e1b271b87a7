"""The Laplacian Pyramid Translation Network (section 3 and figure 2 of the paper).

Every convolution with many channels runs on an image that was halved at least once, so the cost grows slowly
with the size of a photograph. Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cvpr21lib import checkpoints
from cvpr21lib.errors import InputError
from cvpr21lib.lptn.branches import LowBranch, Masking, PaperMasking, ReleasedMasking, enlarge
from cvpr21lib.lptn.pyramid import decompose, reconstruct

Arch = Literal["released", "paper", "no_masking"]


class LPTN(nn.Module):
    """Translate the low-pass image with a CNN, re-weight the bands with masks, put the pyramid back together.

    Args:
        num_high: number of levels L (default: the released L = 3; the paper also shows 4 and 5).
        nrb_low: residual blocks of the low branch.
        nrb_high: residual blocks of the high branch.
        width: channels of the residual blocks (64 in the paper).
        arch: how the bands are re-weighted. `"released"`: as the authors' code and weights do it, see
            `ReleasedMasking`; `"paper"`: as the paper describes it, see `PaperMasking`; `"no_masking"`: the
            bands pass unchanged (an ablation of ours).
    """

    def __init__(
        self,
        num_high: int = 3,
        nrb_low: int = 5,
        nrb_high: int = 3,
        width: int = 64,
        arch: Arch = "released",
    ) -> None:
        super().__init__()
        if num_high < 1:
            raise InputError(f"num_high is {num_high}; LPTN needs at least 1 level.")
        if arch not in ("released", "paper", "no_masking"):
            raise InputError(f"arch is {arch!r}; expected 'released', 'paper' or 'no_masking'.")
        self.num_high, self.arch = num_high, arch
        self.trans_low = LowBranch(nrb_low, width)
        if arch != "no_masking":
            masking = ReleasedMasking if arch == "released" else PaperMasking
            self.trans_high: Masking = masking(nrb_high, num_high, width)

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (N, 3, H, W), RGB in [0, 1]. Returns the same shape, not clamped.

        Any H and W from `pyramid.minimum_size(num_high)` on; smaller ones raise `InputError`.

        Half precision is an option, not the default, as it is an approximation: call this inside
        `torch.autocast(device_type, torch.bfloat16)`, which keeps the pyramid exact and only runs the
        convolutions in 16 bits.
        """
        _check_channels(image)
        *bands, low = decompose(image, self.num_high)
        translated = self.trans_low(low)
        if self.arch != "no_masking":
            masks = self.trans_high.masks(self.trans_high.base_input(bands[-1], low, translated))
            bands = self.trans_high.refine_all(bands, masks)
        return reconstruct([*bands, translated])

    def explain(self, image: Tensor) -> Explanation:
        """All that `forward` computes on the way, for figures and tests; `image` as there."""
        _check_channels(image)
        *bands, low = decompose(image, self.num_high)
        translated = self.trans_low(low)
        base_input, masks, refined = None, [], bands
        if self.arch != "no_masking":
            base_input = self.trans_high.base_input(bands[-1], low, translated)
            masks = self.trans_high.masks(base_input)
            refined = self.trans_high.refine_all([band.clone() for band in bands], masks)
            masks = [
                enlarge(mask, 2**level, band)
                for level, (mask, band) in enumerate(zip(masks, reversed(bands), strict=True))
            ]
        output = reconstruct([*refined, translated])
        return Explanation(bands, low, translated, base_input, masks, refined, output)

    @torch.no_grad()
    def start_from_identity(self) -> None:
        """Set the weights so that the bands pass unchanged at first: masks say "keep", blocks are identities.

        An option of ours for short trainings, not in the official code. It changes the start only, not what
        the network can express. The low branch keeps its random start.
        """
        if self.arch != "no_masking":
            self.trans_high.start_from_identity()


class Explanation(NamedTuple):
    """The steps of one forward pass. L = num_high; level sizes are those of the bands."""

    bands: list[Tensor]  # h_0 ... h_{L-1}, finest first, (N, 3, H_l, W_l), signed
    low: Tensor  # I_L, the low-pass image
    translated_low: Tensor  # its translation, in (-1, 1)
    base_input: Tensor | None  # (N, 9, H_{L-1}, W_{L-1}): [h_{L-1}, low enlarged, translated low enlarged]
    masks: list[Tensor]  # coarsest first, each at its band's size; 3 channels (released) or 1 (paper)
    refined_bands: list[Tensor]  # finest first
    output: Tensor  # (N, 3, H, W)


class FullResolution(nn.Module):
    """The low branch's CNN on the whole photograph, without a pyramid: the baseline LPTN is compared with."""

    def __init__(self, nrb_low: int = 5, width: int = 64) -> None:
        super().__init__()
        self.trans_low = LowBranch(nrb_low, width)

    def forward(self, image: Tensor) -> Tensor:
        """Translate `image` (N, 3, H, W), RGB in [0, 1]. Returns the same shape, in (-1, 1)."""
        return self.trans_low(image)


def _check_channels(image: Tensor) -> None:
    if image.ndim == 4 and image.shape[1] != 3:
        raise InputError(
            f"the image has {image.shape[1]} channels; LPTN translates RGB, (N, 3, H, W). Repeat grey three "
            "times, and keep an alpha channel aside (`translate` does both)."
        )


def load_official(path: str | Path) -> LPTN:
    """Read weights in the official layout (`net_g_*.pth`, ours too) into a fitting LPTN, in evaluation mode.

    Depth, width, number of levels and architecture are read off the names and shapes. Official files saved
    after a forward pass hold 60 names for the 56 parameters (at L = 3), because that pass left an alias of
    the finest level's block on the module; it must equal that block, and is dropped. Anything else is an
    `InputError` that says what the file seems to be.
    """
    state = checkpoints.load(path)
    _recognise(state, path)
    blocks = {key.split(".")[1] for key in state if key.startswith("trans_high.trans_mask_block_")}
    levels = sorted(int(block.removeprefix("trans_mask_block_")) for block in blocks)
    if levels != list(range(len(levels))):
        missing = min(set(range(levels[-1])) - set(levels))
        raise InputError(
            f"{path} has masks for levels {levels} but none for level {missing} "
            f"(trans_high.trans_mask_block_{missing}): part of the file is missing."
        )
    model = LPTN(
        num_high=len(levels),
        nrb_low=_count_residual_blocks(state, "trans_low."),
        nrb_high=_count_residual_blocks(state, "trans_high."),
        width=_outputs(state, "trans_low.model.3.weight", path),
        arch=_arch(_outputs(state, "trans_high.trans_mask_block_0.2.weight", path), path),
    )
    alias, finest = "trans_high.trans_mask_block.", f"trans_high.trans_mask_block_{levels[-1]}."
    for key in [key for key in state if key.startswith(alias)]:
        original = state.get(key.replace(alias, finest))
        if original is None or not torch.equal(state[key], original):
            raise InputError(
                f"{path} contradicts itself: {key} should repeat {key.replace(alias, finest)} but differs. "
                "The file was put together from several, or was damaged."
            )
    checkpoints.fit(model, state, source=str(path), drop=(alias,))
    return model.eval()


def _recognise(state: Mapping[str, Tensor], path: str | Path) -> None:
    has = {prefix: any(key.startswith(prefix) for key in state) for prefix in _PREFIXES}
    if has["trans_low."] and has["trans_high.trans_mask_block_"]:
        return
    found = next((what for prefix, what in _PREFIXES.items() if has[prefix]), None)
    if found is None:
        found = f"weights of another network (its parameters are named {', '.join(list(state)[:3])}, ...)"
    raise InputError(f"{path} does not hold an LPTN generator but {found}; look for net_g_*.pth.")


_PREFIXES = {
    "trans_high.trans_mask_block_": "only its high branch",
    "trans_high.": "an LPTN without its mask blocks",
    "trans_low.": "a network without masks (arch='no_masking' or FullResolution; build it and use "
    "checkpoints.fit, as its number of levels cannot be read off the weights)",
    "models.disc_0.": "a three-scale discriminator",
    "model.": "what looks like LPTN's discriminator (net_d_*.pth)",
}


def _count_residual_blocks(state: Mapping[str, Tensor], branch: str) -> int:
    return sum(key.startswith(branch) and key.endswith(".block.0.weight") for key in state)


def _outputs(state: Mapping[str, Tensor], key: str, path: str | Path) -> int:
    if key not in state:
        raise InputError(f"{path} is an LPTN generator without {key}: part of the file is missing.")
    return state[key].shape[0]


def _arch(mask_channels: int, path: str | Path) -> Arch:
    if mask_channels not in (1, 3):
        raise InputError(
            f"{path} has masks of {mask_channels} channels; LPTN has 3 (the released code) or 1 (the paper)."
        )
    return "released" if mask_channels == 3 else "paper"
