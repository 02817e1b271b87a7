"""EOPSN's cosine k-means beside other ways to the same clusters: same process, one thread.

The size is that of the paper's memory: 8 processes × 200 iterations × 20 proposals, features of 1024 numbers,
128 clusters. `make benchmarks` prints the ratios, of processor time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import threadpoolctl
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from cvpr21lib.eopsn.kmeans import cosine_kmeans

pytestmark = pytest.mark.benchmark(timer=time.process_time)

POINTS, WIDTH, CLUSTERS = 32_000, 1024, 128
#: Points that the broadcast form takes at a time. All at once it would need 17 GB for each temporary.
CHUNK = 500


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features(count: int, noise: float) -> torch.Tensor:
    """As after a ReLU: point i around direction i modulo 128, at noise 1 beyond doubt, at 5 hardly."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(CLUSTERS, WIDTH, generator=generator)
    points = torch.randn(count, WIDTH, generator=generator)
    return (noise * points + directions[torch.arange(count) % CLUSTERS]).relu()


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return features(POINTS, noise=5)


def literal(points: torch.Tensor, iterations: int) -> torch.Tensor:
    """The cosine of each point and each centre as a sum over an N × K × D product, centres in a loop."""
    unit, centres = F.normalize(points, dim=1), points[:CLUSTERS].clone()
    for _ in range(iterations):
        unit_centres = F.normalize(centres, dim=1)
        distance = [1 - (chunk[:, None] * unit_centres[None]).sum(2) for chunk in unit.split(CHUNK)]
        nearest = torch.cat(distance).argmin(1)
        for cluster in range(CLUSTERS):
            members = (nearest == cluster).nonzero()[:, 0]
            if len(members):
                centres[cluster] = points.index_select(0, members).mean(0)
    return nearest


def ours(points: torch.Tensor, iterations: int) -> torch.Tensor:
    start = torch.arange(CLUSTERS)
    return cosine_kmeans(points, CLUSTERS, start=start, iterations=iterations, tolerance=0).assignment


def test_an_iteration_against_the_broadcast_form(against, points):
    expected = []
    against(
        "one iteration of cosine k-means, 32,000×1024×128, broadcast in chunks",
        lambda: ours(points, 1),
        lambda: expected.append(literal(points, 1)),
        1,
        time.process_time,
    )
    assert torch.equal(ours(points, 1), expected[0])


def scikit_learn(points: torch.Tensor, iterations: int) -> torch.Tensor:
    """k-means of unit vectors, whose centres are means of unit vectors."""
    unit = F.normalize(points, dim=1).numpy()
    with threadpoolctl.threadpool_limits(1):
        found = KMeans(CLUSTERS, init=unit[:CLUSTERS], n_init=1, max_iter=iterations, tol=0).fit(unit)
    return torch.from_numpy(found.labels_).long()


def faiss(points: torch.Tensor, iterations: int) -> torch.Tensor:
    """Spherical k-means, whose centres are unit vectors."""
    library = pytest.importorskip("faiss")
    library.omp_set_num_threads(1)
    unit = F.normalize(points, dim=1).numpy()
    found = library.Kmeans(
        WIDTH, CLUSTERS, niter=iterations, spherical=True, max_points_per_centroid=len(points)
    )
    found.train(unit, init_centroids=unit[:CLUSTERS])
    return torch.from_numpy(found.index.search(unit, 1)[1][:, 0])


@pytest.mark.parametrize("other", [scikit_learn, faiss])
def test_five_iterations_against_other_libraries(against, points, other):
    """Their centres are others, so clusters are the same only where points leave no doubt."""
    clear = features(2000, noise=1)
    assert torch.equal(ours(clear, 5), other(clear, 5))
    assert cosine_kmeans(points, CLUSTERS, start=torch.arange(CLUSTERS), iterations=5).iterations == 5
    against(
        f"five iterations of cosine k-means, 32,000×1024×128, {other.__name__}",
        lambda: ours(points, 5),
        lambda: other(points, 5),
        2,
        time.process_time,
    )
