"""What a Score-CAM heatmap costs: torchcam, pytorch-grad-cam and ours, on the stored weights.

    python -m benchmarks.scorecam --task cxr --csv benchmarks/results/scorecam.csv
    python -m benchmarks.scorecam --task cxr --curve benchmarks/results/scorecam-curve

The first times every method on the same test images, in turn and in another order for each image,
and compares each map with torchcam's. Peers run with their default settings, on the network as the
project loads it (eager, float32, channels-last). The second shows how the agreement with the exact
map grows with the channels that are run, for published orders of the channels and for ours
(`benchmarks.scorecam_curve`). pytorch-grad-cam is left out where it is not installed
(`pip install grad-cam`).
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.scorecam_curve import draw_curves
from kdmodels.engines.base import default_threads
from kdmodels.engines.choice import EngineError
from kdmodels.engines.machine import describe_machine, write_measured
from kdmodels.explain.channels import KEPT
from kdmodels.explain.scorecam import explain, explain_progressively
from kdmodels.explain.similarity import agreement
from kdmodels.images.read import read_image
from kdmodels.models.checkpoints import CheckpointError, Index
from kdmodels.models.zoo import STUDENTS
from kdmodels.predict import Classifier
from kdmodels.tasks import TASKS
from train.data.manifest import DataError, Manifest
from train.data.open import open_manifest

AGREEMENT = 0.95  # of the progressive map with the exact one, estimated, at which it is stopped

# (heatmap, channels run) of an image for a class index
Method = Callable[[Classifier, Image.Image, int], tuple[np.ndarray, int]]


def by_torchcam(classifier: Classifier, image: Image.Image, index: int) -> tuple[np.ndarray, int]:
    from torchcam.methods import ScoreCAM

    spec = classifier.spec
    with torch.inference_mode():
        images = classifier.prepare(image)
        with ScoreCAM(
            classifier.model,
            spec.cam_layer,
            input_shape=tuple(images.shape[1:]),
            reshape_transform=spec.cam_reshape,
        ) as extractor:
            classifier.model(images)
            (cam,) = extractor(index)
    return cam[0].cpu().numpy(), spec.cam_channels


def by_grad_cam(classifier: Classifier, image: Image.Image, index: int) -> tuple[np.ndarray, int]:
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    spec = classifier.spec
    layer = classifier.model.get_submodule(spec.cam_layer)
    with (
        contextlib.redirect_stderr(io.StringIO()),  # its progress bar
        ScoreCAM(classifier.model, [layer], reshape_transform=spec.cam_reshape) as extractor,
    ):
        cam = extractor(classifier.prepare(image), [ClassifierOutputTarget(index)])
    return np.nan_to_num(cam[0]), spec.cam_channels


def exact(classifier: Classifier, image: Image.Image, index: int) -> tuple[np.ndarray, int]:
    KEPT.clear()
    heatmap = explain(classifier, image, classifier.task.class_ids[index])
    return heatmap, classifier.spec.cam_channels


def progressive(classifier: Classifier, image: Image.Image, index: int) -> tuple[np.ndarray, int]:
    KEPT.clear()
    class_id = classifier.task.class_ids[index]
    steps = explain_progressively(classifier, image, class_id)
    step = next(step for step in steps if min(step.estimate, step.steadiness) >= AGREEMENT)
    return step.heatmap, step.done


METHODS: dict[str, Method] = {
    "torchcam": by_torchcam,
    "pytorch-grad-cam": by_grad_cam,
    "ours, exact": exact,
    f"ours, to {AGREEMENT}": progressive,
}


def test_images(manifest: Manifest, count: int) -> list[tuple[str, Image.Image]]:
    """(label, checked image) of `count` images of the test split, the classes in turn."""
    generator = np.random.default_rng(0)
    samples = manifest.split("test")
    piles = [[s for s in samples if s.label == label] for label in manifest.task.class_ids]
    piles = [[pile[i] for i in generator.permutation(len(pile))] for pile in piles]
    turns = [pile[i] for i in range(max(map(len, piles))) for pile in piles if i < len(pile)]
    return [(s.label, read_image(s.path).pixels) for s in turns[:count]]


def subjects(index: Index, task: str, models: list[str] | None) -> Iterator[Classifier]:
    """The stored teachers of a task, and the student of the first of them."""
    teachers = index.teachers(task)
    for model in models or [*teachers, *STUDENTS]:
        checkpoint = index.find(task, model, teachers[0] if model in STUDENTS else None)
        yield Classifier.load(index, checkpoint)


def compare(
    classifier: Classifier, images: list[tuple[str, Image.Image]], grad_cams: int
) -> Iterator[dict]:
    """Time all methods on each image and yield a row for each; the first image warms up."""
    names = list(METHODS)
    engine, checkpoint = classifier.engine, classifier.checkpoint
    for turn, (label, image) in enumerate([images[0], *images]):
        with torch.inference_mode():
            index = int(engine(classifier.prepare(image)).logits.argmax())
        maps, rows = {}, []
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name == "pytorch-grad-cam" and turn > grad_cams:
                continue
            if turn == 0 and name in ("torchcam", "pytorch-grad-cam"):
                classifier.model(classifier.prepare(image))  # warm enough, without all channels
                continue
            started = time.perf_counter()
            maps[name], run = METHODS[name](classifier, image, index)
            rows.append({
                "task": checkpoint.task,
                "model": checkpoint.model,
                "sha256": checkpoint.sha256[:12],
                "size_px": classifier.spec.input_size,
                "image": turn,
                "label": label,
                "class": classifier.task.class_ids[index],
                "method": name,
                "engine": engine.name if name.startswith("ours") else "PyTorch eager, float32",
                "channels": run,
                "seconds": time.perf_counter() - started,
            })  # fmt: skip
        if turn:
            for row in rows:
                found = agreement(maps[row["method"]], maps["torchcam"])
                yield row | {"pearson": found.pearson, "overlap": found.overlap}


def summary(rows: list[dict]) -> Iterator[str]:
    """A line for each method on one model: time against torchcam's, and agreement with its map."""
    reference = {row["image"]: row["seconds"] for row in rows if row["method"] == "torchcam"}
    for method in METHODS:
        part = [row for row in rows if row["method"] == method]
        if not part:
            continue
        ratios = [reference[row["image"]] / row["seconds"] for row in part]
        agreements = [row["pearson"] for row in part if not np.isnan(row["pearson"])] or [np.nan]
        yield (
            "{task} {model} ({size_px} px, {engine}), {method}: ".format(**part[0])
            + f"{statistics.median(ratios):.1f} times as fast as torchcam "
            f"({min(ratios):.1f} to {max(ratios):.1f}; "
            f"median {statistics.median(row['seconds'] for row in part):.2f} s, "
            f"{statistics.mean(row['channels'] for row in part):.0f} channels); agreement with its "
            f"map {np.mean(agreements):.4f} (10th percentile {np.percentile(agreements, 10):.4f}, "
            f"least {min(agreements):.4f}), {len(part)} images"
        )


def about() -> str:
    return f"{describe_machine()}, {torch.get_num_threads()} threads"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all")
    parser.add_argument("--model", action="append", help="default: the teachers and a student")
    parser.add_argument("--data", default=os.environ.get("KD_DATA", "../shared/data"))
    parser.add_argument("--images", type=int, default=20, help="test images (default 20)")
    parser.add_argument("--grad-cam-images", type=int, default=3, help="for it (default 3)")
    parser.add_argument("--engine", choices=("torch", "openvino"), help="of ours")
    parser.add_argument("--precision", choices=("float32", "bf16"), help="of ours")
    parser.add_argument("--threads", type=int, help="CPU threads (default: physical cores)")
    parser.add_argument("--csv", type=Path, help="write the measured times there")
    parser.add_argument("--curve", type=Path, help="draw curves: write <it>.png and <it>.csv")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads or default_threads())
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError:
        print("pytorch-grad-cam is not installed (pip install grad-cam): it is left out.")
        args.grad_cam_images = 0
        METHODS.pop("pytorch-grad-cam")
    rows: list[dict] = []
    curves = []
    try:
        index = Index.read()
        for task in args.task or [task for task in TASKS if index.teachers(task)]:
            images = test_images(open_manifest(task, args.data), args.images)
            for classifier in subjects(index, task, args.model):
                classifier = replace(
                    classifier, kind=args.engine, precision=args.precision, threads=args.threads
                )
                if args.curve:
                    curves.append((classifier, images))
                    continue
                own: list[dict] = []
                for row in compare(classifier, images, args.grad_cam_images):
                    own.append(row)
                    if args.csv:
                        write_measured(args.csv, rows + own, about())
                print(*summary(own), sep="\n", flush=True)
                rows += own
        if args.curve:
            curve = draw_curves(curves, args.curve.with_suffix(".png"))
            write_measured(args.curve.with_suffix(".csv"), curve, about())
    except (CheckpointError, DataError, EngineError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
