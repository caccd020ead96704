"""How soon a Score-CAM map is near the exact one: by the order of channels, and by time.

All channels of an image are run once; then each way of making a map from some of them is replayed.
The published ways leave out what was not run:

    spread      channels of the largest standard deviation first
    gScoreCAM   channels of the largest mean gradient first (Chen et al., "gScoreCAM: What Objects
                Is CLIP Looking At?", ACCV 2022)
    gradient x activation
    clusters    one channel for each cluster of masks stands for all of it, after Cluster-CAM (Feng
                et al., "Cluster-CAM: Cluster-Weighted Visual Interpretation of CNNs' Decision in
                Image Classification", 2023), by k-means
    random      the control

Ours predicts them (`kdmodels.explain.surrogate`); "random, predicted" does so after a random choice.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image
from torch import Tensor

from kdmodels.explain.channels import KEPT, Channels, read_channels
from kdmodels.explain.scorecam import Sketch, explain, explain_progressively, heatmap_of
from kdmodels.explain.similarity import pearson
from kdmodels.explain.surrogate import Surrogate
from kdmodels.models.zoo import get_spec
from kdmodels.predict import Classifier
from kdmodels.tasks import get_task

COUNTS = (8, 16, 24, 40, 64, 96, 144, 216)  # channels run, where the page makes its maps

OURS, PROMISED, TIMED = "ours", "ours, estimated", "ours, timed"
TARGET = 0.95

Images = Sequence[tuple[str, Image.Image]]


def unscored(channels: Channels) -> Channels:
    """The same channels before any was run."""
    fresh = copy.copy(channels)
    fresh.logits = torch.zeros_like(channels.logits)
    fresh.scored = torch.zeros_like(channels.scored)
    return fresh


def left_out(channels: Channels, scores: Tensor, run: Tensor) -> np.ndarray:
    """The map of the channels that were run, as if there were no others."""
    return heatmap_of(channels, torch.where(run, scores, -torch.inf))


def first_of(order: Tensor) -> Callable[[Channels, Tensor, int], np.ndarray]:
    """Run channels in a given order and leave the others out."""

    def make(channels: Channels, scores: Tensor, count: int) -> np.ndarray:
        run = torch.zeros(len(scores), dtype=torch.bool)
        run[order[:count]] = True
        return left_out(channels, scores, run)

    return make


def predicted(order: Tensor) -> Callable[[Channels, Tensor, int], np.ndarray]:
    """Run channels in a given order and predict the others."""

    def make(channels: Channels, scores: Tensor, count: int) -> np.ndarray:
        surrogate = Surrogate(channels.masks, channels.activations)
        return heatmap_of(channels, surrogate.believe(order[:count], scores[order[:count]]).scores)

    return make


def clusters(channels: Channels, scores: Tensor, count: int) -> np.ndarray:
    """Run the channel next to each cluster's centre; it stands for the whole cluster."""
    from sklearn.cluster import KMeans

    masks = channels.masks.flatten(1).numpy()
    found = KMeans(count, n_init=1, random_state=0).fit(masks)
    nearest = found.transform(masks).argmin(0)
    return heatmap_of(channels, scores[nearest][found.labels_])


def gradients(classifier: Classifier, image: Image.Image, class_index: int) -> Tensor:
    """(C, h, w) gradient of the class's logit at the Score-CAM layer, by one backward pass."""
    spec, kept = classifier.spec, []
    layer = classifier.model.get_submodule(spec.cam_layer)
    handle = layer.register_forward_hook(lambda _m, _i, output: kept.append(output))
    try:
        with torch.enable_grad():
            images = classifier.prepare(image).clone().requires_grad_()
            logit = classifier.model(images)[0, class_index]
            (gradient,) = torch.autograd.grad(logit, kept[0])
    finally:
        handle.remove()
    return (spec.cam_reshape(gradient) if spec.cam_reshape else gradient)[0].cpu()


def replays(
    classifier: Classifier, image: Image.Image, channels: Channels, class_index: int
) -> Iterator[tuple[str, int, float]]:
    """(way, channels run, agreement with the exact map) for all ways and counts."""
    scores = channels.scores(class_index)
    exact = heatmap_of(channels, scores)
    gradient = gradients(classifier, image, class_index)[channels.runs]
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    spread = channels.activations.flatten(1).std(1)
    ways = {
        "spread": first_of(spread.argsort(descending=True)),
        "gScoreCAM": first_of(gradient.mean((1, 2)).argsort(descending=True)),
        "gradient x activation": first_of(
            (gradient * channels.activations).sum((1, 2)).abs().argsort(descending=True)
        ),
        "random": first_of(shuffled),
        "clusters": clusters,
        "random, predicted": predicted(shuffled),
    }
    counts = [count for count in COUNTS if count < len(scores)]
    for way, make in ways.items():
        for count in counts:
            yield way, count, agreement_of(make(channels, scores, count), exact)
    fresh = unscored(channels)
    sketch = Sketch(fresh, class_index, batch=8)
    while fresh.left:
        runs = sketch.take()
        fresh.record(runs, channels.logits[runs])
        count = int(fresh.scored.sum())
        if fresh.left and count >= sketch.due:
            sketch.update()
            if count in counts:
                yield OURS, count, agreement_of(sketch.step().heatmap, exact)
                yield PROMISED, count, sketch.estimate


def agreement_of(heatmap: np.ndarray, exact: np.ndarray) -> float:
    """Pearson correlation; 0 for a map that shows nothing."""
    return float(np.nan_to_num(pearson(heatmap, exact)))


def record(classifier: Classifier, images: Images) -> Iterator[dict]:
    """A row for each image, way and number of channels, and for each of our maps with its time."""
    about = {"task": classifier.task.id, "model": classifier.spec.id}
    explain(classifier, images[0][1], classifier.task.class_ids[0])  # warm up
    for number, (_, image) in enumerate(images):
        with torch.inference_mode():
            index = int(classifier.engine(classifier.prepare(image)).logits.argmax())
        class_id = classifier.task.class_ids[index]
        KEPT.clear()
        started, steps = time.perf_counter(), []
        for step in explain_progressively(classifier, image, class_id):
            steps.append((time.perf_counter() - started, step))
        exact = steps[-1][1].heatmap
        if not exact.any():
            continue
        channels = read_channels(classifier, classifier.prepare(image))  # kept
        none_needed = channels.total - int(channels.counts.sum())
        row = about | {"image": number}
        for seconds, step in steps:
            run = step.done - none_needed
            value = agreement_of(step.heatmap, exact)
            yield row | numbers(TIMED, run, run / step.total, value, round(seconds, 4))
        for way, count, value in replays(classifier, image, channels, index):
            yield row | numbers(way, count, count / channels.total, value)


def numbers(way: str, channels: int, share: float, value: float, seconds: float | str = "") -> dict:
    return {
        "way": way,
        "channels": channels,
        "share": round(share, 5),
        "agreement": round(value, 5),
        "seconds": seconds,
    }


def draw_curves(subjects: Sequence[tuple[Classifier, Images]], picture: Path) -> list[dict]:
    """Record all subjects, print the numbers and draw the curves; return a row for each value."""
    rows: list[dict] = []
    for classifier, images in subjects:
        own = list(record(classifier, images))
        rows += own
        for way in dict.fromkeys(row["way"] for row in own):
            told = "; ".join(
                f"{n}: {mean:.3f} ({low:.3f})" for n, _, mean, low, _ in curve(own, way)
            )
            print(
                f"{classifier.task.id} {classifier.spec.id}, {way}, mean (10th percentile): {told}"
            )
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(rows).savefig(picture, dpi=120)
    return rows


def curve(rows: list[dict], way: str) -> list[tuple[int, float, float, float, float]]:
    """(channels, share of all, mean agreement, 10th percentile, seconds) for each count of `COUNTS`.

    Of images that have so many channels; seconds are medians, and NaN where none were taken.
    """
    own, points = [row for row in rows if row["way"] == way], []
    for count in COUNTS:
        part = [row for row in own if row["channels"] == count]
        if part:
            values = [row["agreement"] for row in part]
            seconds = [row["seconds"] for row in part if row["seconds"] != ""]
            points.append(
                (
                    count,
                    float(np.mean([row["share"] for row in part])),
                    float(np.mean(values)),
                    float(np.percentile(values, 10)),
                    float(np.median(seconds)) if seconds else float("nan"),
                )
            )
    return points


def draw(rows: list[dict]) -> Figure:
    """A column for each model: agreement by share of the channels (above), and by time."""
    models = list(dict.fromkeys((row["task"], row["model"]) for row in rows))
    figure = Figure(figsize=(3.6 * len(models) + 1, 6.4), layout="constrained")
    axes = figure.subplots(2, len(models), squeeze=False, sharey=True)
    for (above, below), (task, model) in zip(axes.T, models, strict=True):
        own = [row for row in rows if (row["task"], row["model"]) == (task, model)]
        for way in dict.fromkeys(row["way"] for row in own):
            _, shares, means, lows, seconds = zip(*curve(own, way), strict=True)
            if way == TIMED:
                (line,) = below.plot(seconds, means, "o-", color="black", label="mean")
                below.plot(seconds, lows, "--", color=line.get_color(), label="10th percentile")
            elif way == OURS:
                above.plot(shares, means, "o-", color="black", label=way)
                above.plot(shares, lows, "--", color="black", label="ours, 10th percentile")
            elif way != PROMISED:
                above.plot(shares, means, ".-", linewidth=1, label=way)
        for axis, label in ((above, "share of the channels that are run"), (below, "seconds")):
            axis.axhline(TARGET, color="0.7", linewidth=0.8)
            axis.set(xscale="log", xlabel=label, ylim=(-0.05, 1.02))
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        above.axvline(1 / 20, color="0.7", linewidth=0.8)
        above.set_title(f"{get_spec(model).paper_name}, {get_task(task).name.lower()}", fontsize=10)
    for row in axes:
        row[0].set_ylabel("agreement with the exact map\n(Pearson, mean over images)")
        row[-1].legend(fontsize=7, loc="lower right")
    return figure
