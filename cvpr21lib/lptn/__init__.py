"""LPTN: the Laplacian Pyramid Translation Network (Liang, Zeng, Zhang; CVPR 2021; arXiv 2105.09188).

Translate a photograph from one domain to another (camera rendering to expert retouching, day to night) at up
to 4K, from unpaired examples. A Laplacian pyramid, which can be inverted exactly, splits the image into L
high-frequency bands and one small low-pass image. Light and colour live mostly in the low-pass image, so only
that is translated, by a small residual network. The bands keep the details; they are only re-weighted by a
mask, predicted once at the coarsest band and carried upwards level by level. No convolution with many
channels runs at full resolution, which is what makes it fast.

Rooms: `pyramid` (split and merge), `model` (the translator), `discriminator`, `losses`, `data` (FiveK or any
two folders), `expert` (the demo's world), `recipe` (training and judging), `translate` (a photograph in, a
photograph out).
"""

from cvpr21lib.lptn.discriminator import Discriminator, MultiScaleDiscriminator, Pix2PixHDDiscriminator
from cvpr21lib.lptn.model import LPTN, FullResolution, load_official
from cvpr21lib.lptn.pyramid import decompose, reconstruct
from cvpr21lib.lptn.translate import translate

__all__ = [
    "LPTN",
    "Discriminator",
    "FullResolution",
    "MultiScaleDiscriminator",
    "Pix2PixHDDiscriminator",
    "decompose",
    "load_official",
    "reconstruct",
    "translate",
]
