"""A folder of panoptic predictions against COCO's ground truth.

    numbers = evaluate("predictions.json", "annotations/panoptic_val2017.json", unknown=("car", "cow"))

The PNGs of `panoptic_val2017.json` lie in `panoptic_val2017/` beside it, as in COCO's archives, if no folder
is given. Reading and matching an image is one piece of work, and the counts are added in the order of the
ground truth: so the numbers are the same, to the last bit, for any number of processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.eopsn.quality import OpenQuality
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic
from cvpr21lib.segmentation.layout import some
from cvpr21lib.segmentation.panoptic import Annotation, Annotations
from cvpr21lib.segmentation.panoptic_quality import Match, match_files

CHUNK = 8
"""Images that a process takes at a time."""


def evaluate(
    predictions: str | Path,
    truth: str | Path,
    *,
    predictions_folder: str | Path | None = None,
    truth_folder: str | Path | None = None,
    unknown: Sequence[str] = (),
    workers: int = 1,
    progress: bool = True,
) -> dict[str, float]:
    """The numbers of `OpenQuality.numbers`, for every image of the ground truth.

    Args:
        predictions: a JSON file; images that the ground truth does not have are left out.
        truth: that of the ground truth.
        predictions_folder, truth_folder: of the PNGs; without them, a folder named like the JSON file.
        unknown: names of the classes that count as unknown; predictions call them all -1.
        workers: processes. With more than one, a script needs `if __name__ == "__main__":` around its call.

    Raises:
        InputError: an image without a prediction, a category that is not judged, or any file that is missing,
            damaged, or does not agree with its JSON.
    """
    truths, preds = panoptic.read_json(Path(truth)), panoptic.read_json(Path(predictions))
    if not truths.categories:
        raise InputError(f"{truth} lists no categories, as predictions do; expected ground truth.")
    quality = OpenQuality(truths.categories, panoptic.numbers_of(unknown, truths.categories))
    _check(truths, preds, quality)
    work = [
        (target._replace(segments=quality.relabelled(target.segments)), preds.images[image_id])
        for image_id, target in truths.images.items()
    ]
    folders = _folder(truths, truth_folder), _folder(preds, predictions_folder)
    with _matches(work, *folders, workers) as matches:
        bar = tqdm(matches, f"Evaluating {preds.path.stem}", len(work), unit="image", disable=not progress)
        for match, target in zip(bar, truths.images.values(), strict=True):
            quality.add_match(match, target.segments)
    return quality.numbers()


@contextmanager
def _matches(
    work: Sequence[tuple[Annotation, Annotation]], targets: Path, preds: Path, workers: int
) -> Iterator[Iterator[Match]]:
    """What became of each pair of images, in order, from this process or from several."""
    true, predicted = [pair[0] for pair in work], [pair[1] for pair in work]
    folders = [[folder] * len(work) for folder in (targets, preds)]
    columns = (true, folders[0], predicted, folders[1])
    if workers < 2:
        yield map(match_files, *columns)
        return
    # forking would copy threads of PyTorch's in mid-work
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map(match_files, *columns, chunksize=CHUNK)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _folder(annotations: Annotations, given: str | Path | None) -> Path:
    folder = annotations.path.with_suffix("") if given is None else Path(given)
    if not folder.is_dir():
        raise InputError(f"the PNGs of {annotations.path} are expected in {folder}, which is no folder.")
    return folder


def _check(truths: Annotations, preds: Annotations, quality: OpenQuality) -> None:
    """See before the long work what would end it."""
    missing = [str(image_id) for image_id in truths.images if image_id not in preds.images]
    if missing:
        raise InputError(
            f"{preds.path} has no prediction for {len(missing):,} of {len(truths.images):,} images: "
            f"{some(missing)}. An image in which nothing was found has an entry without segments."
        )
    for image_id in truths.images:
        for segment in preds.images[image_id].segments:
            where = f"{preds.path}, image {image_id}: segment {segment.id}"
            if segment.category in quality.unknown:
                raise InputError(
                    f"{where} is a {truths.categories[segment.category].name}, which is to be unknown; "
                    f"expected {UNKNOWN}."
                )
            if segment.category not in quality.judged:
                raise InputError(
                    f"{where} is of category {segment.category}; {truths.path.name} does not have it"
                    + (", and no class is unknown." if segment.category == UNKNOWN else ".")
                )
