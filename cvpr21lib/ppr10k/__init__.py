"""PPR10K: portrait retouching with human-region priority and group-level consistency.

Liang, Zeng, Cui, Xie, Zhang; CVPR 2021; arXiv 2105.09180. A photographer delivers a session, not a picture:
people matter more than what is behind them, and one scene should look the same in every frame. A retoucher
predicts, from a thumbnail, how to mix K learned 3D LUTs into one that maps every pixel, at any resolution
(the model is Zeng et al.'s, TPAMI 2020). Two losses make it a portrait retoucher. Human-region priority (HRP)
counts errors on people 25 times. Group-level consistency (GLC) stands in for the frames of one scene by two
differently coloured, differently cropped versions of one photograph, and asks for equal colours where they
overlap. New measures follow: PSNR and ΔE that count the background half, and MGLC, how much the mean colour
varies within a group. The data are 11,161 raw portraits in 1,681 groups, each retouched by three experts.
"""

from cvpr21lib.ppr10k.model import LightPredictor, ResNet18Predictor, Retoucher
from cvpr21lib.ppr10k.retouch import look, retouch, retouch_folder
from cvpr21lib.ppr10k.weights import load, load_official, save

__all__ = [
    "LightPredictor",
    "ResNet18Predictor",
    "Retoucher",
    "load",
    "load_official",
    "look",
    "retouch",
    "retouch_folder",
    "save",
]
