"""What a distillation step costs: with cached teacher targets, without them, and on labels alone.

    python -m benchmarks.distill --teacher vgg19 --size 160 --csv FILE

Generated images, networks with random weights: the cost does not depend on what they show. `plain
loop` is distillation as it is commonly written (timm's and torchdistill's scripts, say): the
teacher sees each batch anew in float32. All run in turn within one process; medians over the turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from kdmodels.engines.machine import describe_machine, write_measured
from kdmodels.images.preprocess import normalise
from kdmodels.models.zoo import TEACHERS, build_model, get_spec
from kdmodels.tasks import get_task
from train.data.manifest import Manifest, Sample
from train.data.pixels import PixelStore
from train.learn.loop import Trainer
from train.learn.objectives import Answers, Hybrid
from train.learn.precision import choose_precision
from train.learn.recipes import Phase, Recipe
from train.learn.runs import RunFolder, RunState
from train.learn.targets import teacher_targets
from train.learn.teachers import Teacher
from train.learn.views import TrainViews

STUDENT, BATCH, VIEWS = "ofa_595", 16, 4
HYBRID = dict(objective="hybrid", objective_settings={"alpha": 0.6, "temperature": 3.0})


def generated(folder: Path, images: int) -> Manifest:
    """Noise in the classes of the histopathology task, the same images in each split."""
    task, samples = get_task("histopathology"), []
    for i in range(images):
        path = folder / f"{i}.png"
        noise = np.random.default_rng(i).integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        for split in ("train", "val"):
            label = task.class_ids[i % task.num_classes]
            samples.append(Sample(path, label, split, f"{split}-{i}", "generated"))
    return Manifest(task, "generated", tuple(samples))


def epoch_of(manifest: Manifest, folder: Path, recipe: Recipe, teachers=()) -> Callable[[], float]:
    """A function that trains one more epoch of the project's own loop and returns its seconds."""
    run = RunFolder(folder / recipe.name, recipe, manifest.id)
    precision = choose_precision("auto", get_spec(recipe.model))
    accelerator = Accelerator(mixed_precision=precision)
    trainer = Trainer(recipe, manifest, run, accelerator, teachers)
    spent: list[float] = []
    inner = trainer._train_epoch

    def timed(*arguments) -> float:
        started = time.perf_counter()
        loss = inner(*arguments)
        spent.append(time.perf_counter() - started)
        return loss

    trainer._train_epoch = timed

    def epoch() -> float:
        run.save_state(RunState())
        trainer.fit()
        return spent[-1]

    return epoch


def plain_loop(manifest: Manifest, size: int, teacher: nn.Module) -> Callable[[], float]:
    """Hybrid distillation in its usual form: no cache, float32 throughout, contiguous tensors."""
    spec = get_spec(STUDENT)
    student = build_model(STUDENT, manifest.task.num_classes, size)
    optimizer = torch.optim.AdamW(student.parameters(), 1e-3)
    objective = Hybrid(0.6, 3.0)
    store = PixelStore(manifest.split("train"), manifest.task, 256)
    views = TrainViews(store, size, 0, 0.5)

    def epoch() -> float:
        keys = [(i, v) for v in range(1) for i in range(len(views))]
        started = time.perf_counter()
        student.train()
        for images, labels, *_ in DataLoader(views, BATCH, sampler=keys, drop_last=True):
            images = normalise(images, spec.mean, spec.std).contiguous()
            with torch.no_grad():
                taught = Answers(teacher(images))
            targets = nn.functional.one_hot(labels, manifest.task.num_classes).float()
            loss = objective(Answers(student(images)), targets, [taught])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - started

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", choices=TEACHERS, action="append", help="default: all")
    parser.add_argument("--size", type=int, default=160, help="image side in px (default 160)")
    parser.add_argument("--images", type=int, default=96, help="images of an epoch (default 96)")
    parser.add_argument("--turns", type=int, default=3, help="timed epochs of each (default 3)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--csv", type=Path, help="also write the table there")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for teacher_id in args.teacher or TEACHERS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(Path(folder), teacher_id, args)
    if args.csv:
        about = f"{describe_machine()}, {torch.get_num_threads()} threads"
        write_measured(args.csv, rows, about)


def measure(folder: Path, teacher_id: str, args: argparse.Namespace) -> list[dict]:
    """Time all kinds with one teacher, print and return a row for each."""
    manifest = generated(folder, args.images)
    spec = get_spec(teacher_id)
    network = build_model(teacher_id, manifest.task.num_classes, args.size).eval()
    bf16 = choose_precision("auto", spec) == "bf16"
    teacher = Teacher(network, spec, "0" * 64, args.size, bf16)
    phase = Phase(size=args.size, epochs=1, lr=1e-3, augmentation=0.5)
    base = dict(task=manifest.task.id, model=STUDENT, phases=(phase,), batch_size=BATCH, mixup=0.0)
    store = PixelStore(manifest.split("train"), manifest.task, 256)
    views = TrainViews(store, args.size, 0, 0.5)
    teacher.to(torch.device("cpu"))
    started = time.perf_counter()
    teacher_targets(teacher, views, 1, folder / "once", torch.device("cpu"))
    once = time.perf_counter() - started
    kinds = {
        "labels only": epoch_of(manifest, folder, Recipe(name="labels", **base, views=VIEWS)),
        "cached targets": epoch_of(
            manifest, folder,
            Recipe(name="cached", **base, **HYBRID, teacher=teacher_id, views=VIEWS), (teacher,),
        ),
        "teacher in each step": epoch_of(
            manifest, folder, Recipe(name="online", **base, **HYBRID, teacher=teacher_id), (teacher,)
        ),
        "plain loop": plain_loop(manifest, args.size, network),
    }  # fmt: skip
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(args.turns + 1):
        for kind, epoch in kinds.items():
            seconds = epoch()
            if turn:  # the first one warms up
                spent[kind].append(seconds)
    labels = statistics.median(spent["labels only"])
    rows = []
    for kind, seconds in spent.items():
        median = statistics.median(seconds)
        rows.append({
            "teacher": teacher_id, "kind": kind, "size": args.size,
            "ms_per_image": round(1000 * median / args.images, 2),
            "least": round(1000 * min(seconds) / args.images, 2),
            "most": round(1000 * max(seconds) / args.images, 2),
            "over_labels_only": round(median / labels, 3),
        })  # fmt: skip
        print("{teacher}, {kind}: {ms_per_image} ms an image ({least} to {most}), "
              "{over_labels_only} of labels only".format(**rows[-1]))  # fmt: skip
    print(f"{teacher_id}: targets of one view, once: {1000 * once / args.images:.1f} ms an image")
    return rows


if __name__ == "__main__":
    main()
