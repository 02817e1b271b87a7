"""The command line: `cvpr21 COMMAND`, or `python -m cvpr21lib COMMAND`.

    cvpr21 papers                                       which papers there are, and which chapters are written
    cvpr21 run lptn --profile full --data-root DIR      one run of a paper's recipe
    cvpr21 run eps-stage2 --masks DIR ...               the second stage of a paper that has two
    cvpr21 results                                      the table of what was run
    cvpr21 records lptn                                 make the book's record of a chapter again
    cvpr21 translate PHOTO --weights FILE --out FILE    apply a trained LPTN to a photograph
    cvpr21 retouch PHOTOS --weights FILE --out PLACE    apply a trained PPR10K to a photograph or a folder
    cvpr21 segment PHOTOS --weights FILE --out FILE     panoptic maps by a trained EOPSN
    cvpr21 evaluate ppr10k RESULTS --targets DIR        the paper's measures of a folder of results
    cvpr21 evaluate eopsn RESULTS --truth FILE          the same, of panoptic maps
    cvpr21 evaluate ctrl_uda CHECKPOINT --target NAME   the same, of a trained network

What is done stands in the shared rooms and the papers' rooms; here are only names, flags and exit codes:
0 done, 2 something given does not fit, 130 and 143 stopped by Ctrl-C and SIGTERM. A paper's room, and with it
torch, is imported when its command runs, so `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from cvpr21lib import __version__, papers
from cvpr21lib.errors import InputError
from cvpr21lib.options import Options

if TYPE_CHECKING:
    from cvpr21lib.record import Record

STAGES = {
    "eps-stage2": "cvpr21lib.eps.stage2",
    "eopsn-start": "cvpr21lib.eopsn.start",
    "ctrl_uda-isl": "cvpr21lib.ctrl_uda.isl",
}
"""Recipes that come before or after a paper's own, by what they are called here."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line, the process's own by default, and return its exit status."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        _app(words)(words, exit_on_error=False, result_action="return_value")
    except CycloptsError:  # already explained on stderr, with the nearest names
        return 2
    except InputError as error:
        print(f"cvpr21: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        return 130
    return 0


def _app(words: Sequence[str]) -> App:
    """All commands. Only the paper that `words` runs brings its own flags, since they cost an import."""
    app = App(
        name="cvpr21",
        help="Eight CVPR 2021 papers to read, run, check and extend.",
        version=__version__,
        suppress_keyboard_interrupt=False,
    )
    app.command(_papers, name="papers")
    run = App(
        name="run", help="Train and evaluate by a paper's recipe, continue a run, or show a finished one."
    )
    for paper in papers.all():
        for name in (paper.slug, *(name for name in STAGES if name.startswith(f"{paper.slug}-"))):
            command = _run(name) if list(words[:2]) == ["run", name] else _unwanted
            run.command(command, name=name, help=paper.title, sort_key=paper.number)
    app.command(run)
    app.command(_results, name="results")
    app.command(_records, name="records")
    app.command(_translate, name="translate")
    app.command(_retouch, name="retouch")
    app.command(_segment, name="segment")
    evaluate = App(name="evaluate", help="Measure a folder of results as a paper does.")
    evaluate.command(_evaluate_ppr10k, name="ppr10k")
    evaluate.command(_evaluate_eopsn, name="eopsn")
    evaluate.command(_evaluate_ctrl_uda, name="ctrl_uda")
    app.command(evaluate)
    return app


def _papers(*, markdown: bool = False) -> None:
    """List the papers.

    Parameters
    ----------
    markdown
        Print the table that the README shows.
    """
    if markdown:
        print(papers.markdown_table())
        return
    for paper in papers.all():
        state = paper.notebook or "chapter not written yet"
        print(f"{paper.number}  {paper.slug:<10}  {paper.title}\n   {'':<10}  {paper.url}  {state}")


def _run(name: str) -> Callable[..., None]:
    """The command that runs a recipe; its flags are the fields of its module's `Knobs` and of `Options`."""
    room = importlib.import_module(STAGES[name]) if name in STAGES else _room(name)
    default_knobs, default_options = room.Knobs(), Options()

    def run(*, seeds: Any = None, knobs: Any = default_knobs, options: Options = default_options) -> None:
        from cvpr21lib import results, runs

        made = []
        for each in _seeded(options, seeds):
            recipe = room.recipe(each, knobs)
            made.append(runs.run(recipe, each))
            if _is_first_process():
                print(_summary(made[-1], each.folder(recipe.paper, recipe.name)))
        if len(made) > 1 and _is_first_process():
            print(f"\n{results.runs(made)}")

    flattened = Parameter(name="*", consume_multiple=True)  # --milestones 50000 100000
    several = Parameter(
        consume_multiple=True,
        negative="",
        help="Run with each of these seeds, one after the other, and show means and deviations.",
    )
    run.__annotations__ = {
        "seeds": Annotated[list[int] | None, several],
        "knobs": Annotated[room.Knobs, flattened],
        "options": Annotated[Options, flattened],
        "return": None,
    }
    return run


def _seeded(options: Options, seeds: Sequence[int] | None) -> list[Options]:
    """The options for each seed; of several, each has a folder of its own below the one that was given."""
    if not seeds:
        return [options]
    place = options.output_dir
    return [
        replace(options, seed=seed, output_dir=None if place is None else Path(place) / f"seed{seed}")
        for seed in seeds
    ]


def _unwanted() -> None:
    """Stands for the papers that this command line does not run, so that they are listed and suggested."""


def _results(
    folders: list[Path] | None = None,
    /,
    *,
    compare: Annotated[tuple[Path, Path] | None, Parameter(negative="")] = None,
) -> None:
    """Show what was run, one row an experiment: the mean of every number over its seeds.

    Parameters
    ----------
    folders
        Where to look for records; ./runs (or $CVPR21_RUNS) and book/records unless given.
    compare
        Two runs, each a folder or its results.json: show every entry in which their records differ.
    """
    from cvpr21lib import record, results

    if compare is not None:
        first, second = (record.read(path / record.FILE_NAME if path.is_dir() else path) for path in compare)
        found = record.compare(first, second)
        print(
            "\n".join(f"{each.entry}: {each.first!r} | {each.second!r}" for each in found) or "no difference"
        )
        return
    usual = (Path(os.environ.get("CVPR21_RUNS", "runs")), Path("book/records"))
    folders = folders or [folder for folder in usual if folder.is_dir()]
    records = record.collect(*folders)
    if not records:
        looked = ", ".join(map(str, folders or usual))
        print(f"no finished run in {looked}; `cvpr21 run PAPER` makes one")
    for paper in papers.all():
        of_paper = [each for each in records if each.paper == paper.slug]
        if of_paper:
            print(f"{paper.short}: {paper.title}\n\n{results.runs(of_paper)}\n")


def _records(
    paper: str,
    /,
    *,
    folder: Path = Path("book/records"),
    seeds: Annotated[list[int] | None, Parameter(negative="", consume_multiple=True)] = None,
    part: str = "demo",
) -> None:
    """Make the book's record of a chapter again: every arm of its experiment, over all seeds.

    Parameters
    ----------
    paper
        The paper's name, as `cvpr21 papers` gives it.
    folder
        The folder of all records; the paper's own lies in it.
    seeds
        Seeds to run; the reported ones unless given.
    part
        Another experiment of the chapter, such as ctrl_uda's tuning.
    """
    slug = papers.get(paper).slug
    _room(slug)
    from cvpr21lib import demos

    print(demos.make_record(slug, folder, seeds, part))


def _translate(photo: Path, /, *, weights: Path, out: Path, device: str | None = None) -> None:
    """Apply a trained LPTN to a photograph of any size; its depth, transparency and colour profile stay.

    Parameters
    ----------
    photo
        The photograph: JPEG, PNG, TIFF, WebP and others.
    weights
        An official checkpoint (.pth), or the g.safetensors that one of our runs left.
    out
        Where the result goes; its suffix chooses the format (.png and .tif keep 16 bits).
    device
        Where to compute: cpu, cuda, cuda:1, mps. The best there is unless given.
    """
    from cvpr21lib import images

    images.check_target(out)
    source = images.read(photo)
    images.check_target(out, alpha=source.alpha is not None)
    translation = importlib.import_module("cvpr21lib.lptn.translate")
    images.write(out, translation.translate(source, weights, device=device))


def _retouch(
    photos: Path,
    /,
    *,
    weights: Path,
    out: Path,
    luts: Path | None = None,
    cube: Path | None = None,
    device: str | None = None,
) -> None:
    """Apply a trained PPR10K retoucher to a photograph of any size, or to every photograph of a folder.

    Parameters
    ----------
    photos
        A photograph, or a folder of them. The same call again makes only what is missing in the folder.
    weights
        The retoucher.safetensors that one of our runs left, or an official classifier (with --luts).
    out
        Where the result goes, or the folder of results.
    luts
        The official file of LUTs that belongs to the classifier.
    cube
        For one photograph: also write its look as a .cube file, for a photographer's own tools.
    device
        Where to compute: cpu, cuda, cuda:1, mps. The best there is unless given.
    """
    retouching = importlib.import_module("cvpr21lib.ppr10k.retouch")
    print(retouching.command(photos, weights, out, luts=luts, cube_path=cube, device=device))


def _evaluate_ppr10k(
    results: Path,
    /,
    *,
    targets: Path,
    masks: Path | None = None,
    each: Annotated[bool, Parameter(negative="")] = False,
    resize_masks: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """The five columns of PPR10K's table for a folder of retouched photographs, paired by name.

    Parameters
    ----------
    results
        The retouched photographs, named <group>_<index>.
    targets
        One expert's versions, by the same names.
    masks
        Human masks, by the same names; the human-centred columns need them.
    each
        Also a row for each photograph.
    resize_masks
        Resize masks of another size than their photograph, as the official script does.
    """
    evaluation = importlib.import_module("cvpr21lib.ppr10k.evaluate")
    report = evaluation.evaluate(results, targets, masks, resize_masks=resize_masks)
    print(report.table(each))
    if report.failed:
        raise InputError(f"{len(report.failed):,} photographs were not evaluated; they are named above")


def _segment(
    photos: Path,
    /,
    *,
    weights: Path,
    out: Path,
    k: int = 20,
    method: str = "eopsn",
    listed: Path | None = None,
    device: str | None = None,
) -> None:
    """Make panoptic maps of photographs with a trained EOPSN, in COCO's format.

    Parameters
    ----------
    photos
        A folder of photographs.
    weights
        An official checkpoint (.pth), or the net.safetensors that one of our runs left.
    out
        The JSON file of segments; the PNG maps go to a folder of the same name beside it.
    k
        Share of COCO's things that were hidden in training, in %: 5, 10 or 20.
    method
        How it was trained: eopsn, or a treatment of void.
    listed
        COCO's annotations, whose images are taken, under their ids; all photographs unless given.
    device
        Where to compute: cpu, cuda, cuda:1, mps. The best there is unless given.
    """
    predict = importlib.import_module("cvpr21lib.eopsn.predict")
    print(predict.command(photos, weights, out, k=k, method=method, listed=listed, device=device))


def _evaluate_eopsn(
    predictions: Path, /, *, truth: Path, k: Literal[5, 10, 20] = 20, workers: int = 1
) -> None:
    """Measure panoptic maps, with the unknown things as one class.

    Parameters
    ----------
    predictions
        The JSON file of predicted segments; its PNG maps lie in a folder of the same name.
    truth
        COCO's panoptic annotations, such as panoptic_val2017.json.
    k
        Share of COCO's things that are unknown, in %.
    workers
        Processes.
    """
    evaluation = importlib.import_module("cvpr21lib.eopsn.evaluate")
    classes = importlib.import_module("cvpr21lib.eopsn.classes")
    numbers = evaluation.evaluate(predictions, truth, unknown=classes.UNKNOWN_THINGS[k], workers=workers)
    print("\n".join(f"{name:<28} {value:.2f}" for name, value in numbers.items()))


def _evaluate_ctrl_uda(
    checkpoint: Path,
    /,
    *,
    data_root: Path,
    target: Literal["cityscapes", "mapillary"] = "cityscapes",
    resolution: Literal["full", "low"] = "full",
    depth: bool = False,
    device: str | None = None,
) -> None:
    """Measure a trained network on the target's validation images: IoU of each class, and their means.

    Parameters
    ----------
    checkpoint
        An official checkpoint (.pth), or the net.safetensors or best.safetensors that one of our runs left.
    data_root
        Folder with the prepared data sets.
    target
        Whose validation images.
    resolution
        Of the network's input, as in the experiments; labels always have their own size.
    depth
        Also measure depth, against Cityscapes' disparity.
    device
        Where to compute: cpu, cuda, cuda:1, mps. The best there is unless given.
    """
    evaluate = importlib.import_module("cvpr21lib.ctrl_uda.evaluate")
    print(evaluate.command(checkpoint, data_root, target, resolution, depth=depth, device=device))


def _room(slug: str) -> ModuleType:
    """The module with a paper's `Knobs` and `recipe`; `InputError` while the chapter is not written."""
    name = f"cvpr21lib.{slug}.recipe"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise InputError(
                f"the chapter on {papers.get(slug).short} ({slug}) is not written yet; "
                "`cvpr21 papers` shows which chapters are"
            ) from error
        raise


def _is_first_process() -> bool:
    """Whether this is the one process that speaks, of those that torchrun or srun started."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def _summary(record: Record, folder: Path) -> str:
    numbers = "\n".join(f"  {name:<24} {value:.6g}" for name, value in record.numbers.items())
    return (
        f"{record.paper} {record.name}: {record.profile}, seed {record.seed}, {record.steps} steps, "
        f"{record.wall_time_s:.0f} s\n{numbers}\n{folder / 'results.json'}"
    )
