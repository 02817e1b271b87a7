"""ProS-GAN: targeted attacks on deep hashing (Wang, Zhang, Wu, Shen, Lu; CVPR 2021; arXiv 2105.07553).

A hash network turns images into short codes, and retrieval ranks a database by the Hamming distance between
codes. How far can such a service be led astray by images that look unchanged? A prototype network learns, for
each label, the code that is closest to images of this label and farthest from all others; a generator learns
to change any image, in a single pass, such that the hash network gives it the prototype code of a chosen
label. Earlier attacks take thousands of gradient steps for each image. All of this is robustness research, on
public benchmarks and on victims that the reader trains.

Rooms: `victims` and `hashing` (hash networks and their losses), `prototype`, `generator`, `discriminator` and
`losses`, `schedules`, `weights` and `whole_modules` (official files), `targets`, `attacks` and
`perceptibility` (one list of targets, and all attacks behind one interface), `retrieval` and `database`
(ranking and MAP), `splits` and `data`.
"""

from cvpr21lib.prosgan.attacks import Attack, Iterative, Noise, ProSGAN, dhta, p2p, project
from cvpr21lib.prosgan.discriminator import Discriminator
from cvpr21lib.prosgan.generator import Generator
from cvpr21lib.prosgan.perceptibility import Meter
from cvpr21lib.prosgan.prototype import PrototypeNet
from cvpr21lib.prosgan.retrieval import pack, rank, score
from cvpr21lib.prosgan.victims import Victim

__all__ = [
    "Attack",
    "Discriminator",
    "Generator",
    "Iterative",
    "Meter",
    "Noise",
    "ProSGAN",
    "PrototypeNet",
    "Victim",
    "dhta",
    "p2p",
    "pack",
    "project",
    "rank",
    "score",
]
