"""EPS: explicit pseudo-pixel supervision (Lee, Lee, Lee, Shim; CVPR 2021; arXiv 2105.08965).

Masks for semantic segmentation from image labels, plus a saliency map that knows no classes. A classifier
recognises a train by its rails too, as both come together; saliency tells them apart, but cannot name the
train. EPS gives the classifier one more map, for the background, and takes a softmax over all maps at each
pixel. The maps of the labelled classes add up to one foreground, what is not background is another, and the
blend of both has to equal the saliency map. So names come from the labels, boundaries from saliency, and
context that is not salient falls to the background. Saliency misses objects as well: a labelled class whose
map lies mostly outside of it is not forced into it, but counts as background. The trained classifier makes
pseudo-masks of its training images, and these teach an ordinary segmentation network.

Rooms: `resnet38` (backbone), `model` (EPS and the baseline), `mxnet_params` (ImageNet weights), `losses`,
`optim`, `pseudo_masks` (an image and its labels in, a mask out).
"""

from cvpr21lib.eps.losses import Estimate, classification, estimate, saliency
from cvpr21lib.eps.model import CAM, EPS, load_official
from cvpr21lib.eps.mxnet_params import load_backbone
from cvpr21lib.eps.optim import parameter_groups, poly, sgd
from cvpr21lib.eps.pseudo_masks import ClassMaps, class_maps, mask, scan
from cvpr21lib.eps.resnet38 import ResNet38, normalise

__all__ = [
    "CAM",
    "EPS",
    "ClassMaps",
    "Estimate",
    "ResNet38",
    "class_maps",
    "classification",
    "estimate",
    "load_backbone",
    "load_official",
    "mask",
    "normalise",
    "parameter_groups",
    "poly",
    "saliency",
    "scan",
    "sgd",
]
