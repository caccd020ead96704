"""What a split by image would gain cheap classifiers, from what each split gave."""

from collections.abc import Sequence
from dataclasses import dataclass

from train.measure.kept_rows import LeakageRow

WAYS = ("as_stored", "by_group", "by_image")


@dataclass(frozen=True)
class LeakyClassifier:
    """accuracy: by way of splitting (`WAYS`), of each of its splits."""

    name: str
    accuracy: dict[str, list[float]]


@dataclass(frozen=True)
class LeakageNumbers:
    """images, tested: numbers of all images and of those tested on in the stored split; seeds: of
    the random splits. seen: by way, the share of test images with a training image of their group.
    """

    images: int
    tested: int
    seeds: int
    seen: dict[str, float]
    classifiers: list[LeakyClassifier]


def leakage_numbers(rows: Sequence[LeakageRow]) -> LeakageNumbers | None:
    """None where nothing was measured."""
    if not rows:
        return None
    of_way = {way: [row for row in rows if row.way == way] for way in WAYS}
    names = dict.fromkeys(row.classifier for row in rows)
    stored = of_way["as_stored"][0]
    return LeakageNumbers(
        images=stored.trained + stored.tested,
        tested=stored.tested,
        seeds=len({row.seed for row in of_way["by_image"]}),
        seen={
            way: sum(row.seen / row.tested for row in found) / len(found)
            for way, found in of_way.items()
        },
        classifiers=[
            LeakyClassifier(
                name,
                {
                    way: [row.right / row.tested for row in found if row.classifier == name]
                    for way, found in of_way.items()
                },
            )
            for name in names
        ],
    )
