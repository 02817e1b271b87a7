"""CTRL-UDA: relating depth and semantics for domain adaptation (Saha et al.; CVPR 2021; arXiv 2105.07830).

A network learns semantics and depth on rendered streets, where both are known, and has to see real streets,
where neither is. An adversary makes its answers on the two look alike. Here the adversary sees more than
semantics: depth becomes a distribution over bins, a further head reads semantics off depth, and the three
distributions, each as weighted self-information, form one joint map. In a last stage the network learns from
its own confident answers on the real streets.

Rooms: `model` (`deeplab` and three heads), `discriminator`, `weights` (official checkpoints), `cross_task`
(the joint map), `losses`, `step` (who learns what, in which order), `optim` (with the official optimiser's
hidden factor), `recipe` (the five experiments), `isl` and `pseudo_labels` (self-learning), `evaluation`,
`depth_metrics`, `data` and `label_maps`.
"""

from cvpr21lib.ctrl_uda.cross_task import (
    Bins,
    advent_map,
    bins,
    dada_map,
    joint_map,
    quantise,
    self_information,
)
from cvpr21lib.ctrl_uda.discriminator import Discriminator
from cvpr21lib.ctrl_uda.losses import adversarial, berhu, cross_entropy
from cvpr21lib.ctrl_uda.model import CTRL, Prediction
from cvpr21lib.ctrl_uda.optim import RepeatedSGD
from cvpr21lib.ctrl_uda.step import METHODS, Adaptation, SelfLearning
from cvpr21lib.ctrl_uda.weights import load_imagenet, load_network

__all__ = [
    "CTRL",
    "METHODS",
    "Adaptation",
    "Bins",
    "Discriminator",
    "Prediction",
    "RepeatedSGD",
    "SelfLearning",
    "advent_map",
    "adversarial",
    "berhu",
    "bins",
    "cross_entropy",
    "dada_map",
    "joint_map",
    "load_imagenet",
    "load_network",
    "quantise",
    "self_information",
]
