"""How good an open-set panoptic segmentation is: PQ of what is known, and of all that is unknown.

In the ground truth, segments of unknown classes become the one category `UNKNOWN` before anything is matched;
predictions carry it, too. So an unknown object may be found whatever it is, and taking it for a known thing
is wrong twice, once in each category. (Official code.)

    quality = OpenQuality(categories, unknown)
    for target, pred in images:
        quality.add(target, pred)
    quality.numbers()

**Two scores.** What COCO left without a label is void, where an unknown prediction is excused: nobody knows
whether something is there. A drawn scene knows: its clutter is no object. Label it with `clutter`, and a
prediction on it is wrong: the *strict* score. `clutter_as_void` brings back COCO's rule, the *official* one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cvpr21lib.eopsn.config import UNKNOWN
from cvpr21lib.errors import InputError
from cvpr21lib.segmentation import panoptic_quality
from cvpr21lib.segmentation.panoptic import VOID, Category, Panoptic, Segment
from cvpr21lib.segmentation.panoptic_quality import Match, Quality, match

CLUTTER = -2
"""The category of what is labelled as no object; nobody predicts it."""


class OpenQuality:
    """Counts image by image, for `categories` by their numbers, of which `unknown` are not known."""

    def __init__(self, categories: Mapping[int, Category], unknown: Sequence[int] = ()) -> None:
        stuff = [number for number in unknown if number in categories and not categories[number].isthing]
        strange = [number for number in unknown if number not in categories]
        if strange or stuff:
            raise InputError(
                f"category {(strange or stuff)[0]} cannot be unknown: "
                + ("there is none of this number." if strange else "it is stuff; expected things.")
            )
        self.categories, self.unknown = dict(categories), tuple(unknown)
        known = [number for number in self.categories if number not in self.unknown]
        self.judged = (*known, UNKNOWN) if self.unknown else tuple(known)
        """The categories that are matched."""
        self.counts = np.zeros((len(self.judged), 4))
        """As of `panoptic_quality.count`, for `judged`."""
        self.found = {number: np.zeros(2, np.int64) for number in self.unknown}
        """Objects of each unknown class that were found, and that were missed."""

    def add(self, target: Panoptic, pred: Panoptic) -> None:
        """Count one image; the unknown classes of `target` still have numbers of their own."""
        relabelled = Panoptic(target.ids, self.relabelled(target.segments))
        self.add_match(match(relabelled, pred), target.segments)

    def add_match(self, match: Match, segments: Iterable[Segment]) -> None:
        """Count what became of an image's true `segments`, when they were matched as `relabelled`."""
        self.counts += panoptic_quality.count(match, self.judged)
        category = {segment.id: segment.category for segment in segments}
        for place, those in enumerate(([one for one, _ in match.pairs], match.missed)):
            for segment in those:
                if segment.category == UNKNOWN:
                    self.found[category[segment.id]][place] += 1

    def relabelled(self, segments: Iterable[Segment]) -> tuple[Segment, ...]:
        """True segments as they are matched."""
        return tuple(
            segment._replace(category=UNKNOWN) if segment.category in self.unknown else segment
            for segment in segments
        )

    def group(self, name: str) -> Quality:
        """PQ, SQ and RQ of one group, in [0, 1], over the images that were added so far.

        - stuff, known_things: classes that are known
        - known: both, the paper's PQ
        - unknown: the one category
        - closed_things, closed: the same two with the unknown classes, each of its own and all of it missed;
          where nothing is unknown, plain PQ
        """
        things = np.array([number >= 0 and self.categories[number].isthing for number in self.judged], bool)
        unknown = np.array(self.judged) == UNKNOWN
        missed = np.zeros((len(self.unknown), 4))
        missed[:, 3] = [self.found[number].sum() for number in self.unknown]
        groups = {
            "stuff": self.counts[~things & ~unknown],
            "known_things": self.counts[things],
            "known": self.counts[~unknown],
            "unknown": self.counts[unknown],
            "closed_things": np.concatenate([self.counts[things], missed]),
            "closed": np.concatenate([self.counts[~unknown], missed]),
        }
        if name not in groups:
            raise InputError(f"there is no group {name!r} of classes; there are {', '.join(groups)}.")
        return panoptic_quality.quality(groups[name])

    def numbers(self) -> dict[str, float]:
        """The numbers of a record, in %, without those that have nothing to divide by.

        - closed/pq, closed/sq, closed/rq and so on of every `group`; where nothing is unknown, without known,
          known_things and unknown
        - unknown/recall, unknown/precision: TP / (TP + FN) and TP / (TP + FP)
        - pq/person and so on: PQ of a known class
        - recall/car and so on: share of an unknown class's objects that were found
        """
        names = ["closed", "closed_things", "stuff"]
        if self.unknown:
            names += ["known", "known_things", "unknown"]
        made: dict[str, float] = {}
        for name in names:
            pq, sq, rq, _ = self.group(name)
            made |= {f"{name}/pq": pq, f"{name}/sq": sq, f"{name}/rq": rq}
        if self.unknown:
            _, tp, fp, fn = self.counts[-1]
            made |= {"unknown/recall": _share(tp, fn), "unknown/precision": _share(tp, fp)}
        for row, number in enumerate(self.judged):
            if number != UNKNOWN:
                made[f"pq/{self.categories[number].name}"] = panoptic_quality.quality(self.counts[[row]]).pq
        for number, (found, missed) in self.found.items():
            made[f"recall/{self.categories[number].name}"] = _share(float(found), float(missed))
        return {name: 100 * value for name, value in made.items() if math.isfinite(value)}


def clutter(segment_id: int) -> Segment:
    """A true segment that is no object: never matched and never missed, and it excuses nothing.

    It is a crowd of a category that no prediction has, for which panopticapi's rules say just this.
    """
    return Segment(segment_id, CLUTTER, crowd=True)


def clutter_as_void(target: Panoptic) -> Panoptic:
    """The same ground truth for a judge who cannot tell clutter from what was left without a label."""
    ids = [segment.id for segment in target.segments if segment.category == CLUTTER]
    return Panoptic(
        np.where(np.isin(target.ids, ids), VOID, target.ids),
        tuple(segment for segment in target.segments if segment.category != CLUTTER),
    )


def _share(part: float, rest: float) -> float:
    return float(part / (part + rest)) if part + rest else math.nan
