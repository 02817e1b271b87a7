"""EOPSN: exemplar-based open-set panoptic segmentation (Hwang, Oh, Lee, Han; CVPR 2021; arXiv 2105.08336).

A panoptic network divides an image into things and stuff of the classes it was taught. Here some classes of
things are hidden from training: their pixels are void, as is clutter that no class describes. At test time
the network is to segment hidden things, too, as "unknown". What lies in void is neither background nor one of
the known classes, so both are suppressed there. And hidden things repeat while clutter does not: every so
often the features of proposals in void are clustered; clusters that are dense and look like objects become
new classes, and the closest pairs of their members across images become exemplars. Proposals that look like
an exemplar join it. All of these are pseudo ground truth of the box classifier.

Rooms: `model` and what it is made of (`resnet`, `fpn`, `proposals`, `roi`, `heads`, `semantic_head`, `masks`,
`losses`, `detections`), `weights` (detectron2's checkpoints), `void`, `memory`, `kmeans`, `clustering`,
`exemplars`, `mining` and `pseudo_truth` (from void to exemplars), `merge`, `quality` and `evaluate` (panoptic
maps and their measure).
"""

from cvpr21lib.eopsn.clustering import Calibrated, Schedule, Selection, discover
from cvpr21lib.eopsn.config import Config
from cvpr21lib.eopsn.exemplars import coupled
from cvpr21lib.eopsn.kmeans import cosine_kmeans
from cvpr21lib.eopsn.losses import void_negative
from cvpr21lib.eopsn.memory import Memory, VoidProposals
from cvpr21lib.eopsn.merge import Instance, Rule
from cvpr21lib.eopsn.mining import mine
from cvpr21lib.eopsn.model import PanopticFPN, panoptic_fpn
from cvpr21lib.eopsn.pseudo_truth import PseudoTruth
from cvpr21lib.eopsn.quality import OpenQuality
from cvpr21lib.eopsn.weights import load_official

__all__ = [
    "Calibrated",
    "Config",
    "Instance",
    "Memory",
    "OpenQuality",
    "PanopticFPN",
    "PseudoTruth",
    "Rule",
    "Schedule",
    "Selection",
    "VoidProposals",
    "cosine_kmeans",
    "coupled",
    "discover",
    "load_official",
    "mine",
    "panoptic_fpn",
    "void_negative",
]
