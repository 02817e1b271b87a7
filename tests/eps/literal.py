"""What EPS computes, spelled out in the order of the official code; the library's shortcuts must equal it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cvpr21lib.eps.model import EPS, Classifier
from cvpr21lib.eps.resnet38 import MEAN, STD


def saliency_loss(cam: Tensor, saliency: Tensor, label: Tensor, tau: float = 0.4, lam: float = 0.5) -> Tensor:
    """L_sal, image by image and class by class."""
    maps = F.softmax(cam, dim=1)
    saliency = F.interpolate(saliency, maps.shape[-2:])
    binary = torch.round(saliency)
    losses = []
    for i in range(len(maps)):
        foreground, background = torch.zeros_like(maps[i, 0]), maps[i, -1].clone()
        for c in range(label.shape[1]):
            if label[i, c] == 0:
                continue
            own = torch.round(maps[i, c].detach())
            overlap = (own * binary[i, 0]).sum() / (own + 1e-4).sum()
            if overlap > tau:
                foreground = foreground + maps[i, c]
            else:
                background = background + maps[i, c]
        estimate = lam * foreground + (1 - lam) * (1 - background)
        losses.append(((estimate - saliency[i, 0]) ** 2).mean())
    return torch.stack(losses).mean()


@torch.inference_mode()
def class_maps(net: Classifier, image: np.ndarray, label: Tensor, scales: tuple[float, ...]) -> np.ndarray:
    """The maps of all classes (C, H, W): pass by pass, with all maps enlarged, gated and turned back."""
    height, width = image.shape[:2]
    passes = []
    for scale in scales:
        size = round(width * scale), round(height * scale)
        small = np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))
        small = ((small / np.float32(255) - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
        for flip in (False, True):
            given = torch.from_numpy(np.flip(small, 2).copy() if flip else small)[None]
            if isinstance(net, EPS):
                maps = F.softmax(F.conv2d(net.backbone(given), net.fc8.weight), dim=1)
            else:
                maps = F.relu(F.conv2d(net.backbone(given), net.fc8.weight))
            maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[0].numpy()
            maps = maps[: len(label)] * label.numpy()[:, None, None]
            passes.append(np.flip(maps, 2) if flip else maps)
    total = np.sum(passes, axis=0)
    return total / (total.max((1, 2), keepdims=True) + 1e-5)


def mask(maps: np.ndarray, threshold: float) -> np.ndarray:
    """A constant map in front of those of all classes, and the first of the largest."""
    background = np.full_like(maps[:1], threshold)
    return np.concatenate([background, maps]).argmax(0).astype(np.uint8)


def confusion(target: np.ndarray, pred: np.ndarray, num_classes: int) -> np.ndarray:
    """By the index of the valid pixels."""
    valid = (target >= 0) & (target < num_classes) & (pred < num_classes)
    joint = num_classes * target[valid].astype(int) + pred[valid]
    return np.bincount(joint, minlength=num_classes**2).reshape(num_classes, num_classes)
