"""DeepLab-v2's ResNet-101, as the official code has it: ResNet made dense, with the details of Caffe.

Where it would go below an eighth of the image's size it dilates instead. In contrast to torchvision's ResNet

    the stride of a block is in its first convolution (1x1), not in the second;
    the pooling rounds up (ceil_mode): 64 pixels become 9, 95 become 13, 320 become 41;
    images are BGR from 0 to 255, less a mean (`data`), so torchvision's weights do not fit;
    scale and shift of batch normalisation are never trained.

Its statistics are those of the batch in training, as usual, which officially is a single image; the running
ones, for evaluation, are fed by whatever passes in training: source and target in turn.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from cvpr21lib.errors import InputError


class ResNet101(nn.Module):
    """Images (N, 3, H, W) to features (N, 2048 / width_div, h, w), not negative, h about H / 8.

    Names are those of the official checkpoints, which are torchvision's.

    Args:
        width_div: divides every number of channels (1 in the paper), for small experiments; divides 64.
        blocks: the number of blocks of each layer, for small experiments.
    """

    def __init__(self, width_div: int = 1, blocks: tuple[int, int, int, int] = (3, 4, 23, 3)) -> None:
        super().__init__()
        if width_div < 1 or 64 % width_div:
            raise InputError(
                f"width_div is {width_div}; expected a divisor of 64, as the stem has 64 channels"
            )
        stem = 64 // width_div
        self.channels = 32 * stem
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = AffineFrozenBatchNorm(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.layer1 = layer(blocks[0], stem, 4 * stem)
        self.layer2 = layer(blocks[1], 4 * stem, 8 * stem, stride=2)
        self.layer3 = layer(blocks[2], 8 * stem, 16 * stem, dilation=2)
        self.layer4 = layer(blocks[3], 16 * stem, 32 * stem, dilation=4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class AffineFrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose scale and shift are not trained; its statistics are, as usual."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False)


def layer(depth: int, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Residual blocks that all dilate; the first one has the stride, and a projection in any case."""
    first, *others = (
        block(outputs if index else inputs, outputs, 1 if index else stride, dilation, project=not index)
        for index in range(depth)
    )
    return nn.Sequential(first, *others)


def block(inputs: int, outputs: int, stride: int, dilation: int, project: bool) -> Bottleneck:
    """torchvision's block, (N, inputs, H, W) to (N, outputs, h, w), with its stride in conv1."""
    shortcut = None
    if project:
        projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        shortcut = nn.Sequential(projection, AffineFrozenBatchNorm(outputs))
    made = Bottleneck(
        inputs, outputs // 4, downsample=shortcut, dilation=dilation, norm_layer=AffineFrozenBatchNorm
    )
    made.conv1.stride = (stride, stride)
    return made
