"""Opening a data set, whichever of the known layouts it has."""

from pathlib import Path

from kdmodels.tasks import Task, get_task
from train.data.covid_qu_ex import read_covid_qu_ex
from train.data.lc25000 import read_lc25000
from train.data.manifest import DataError, Manifest
from train.data.parquet import is_parquet, read_parquet
from train.data.starter import read_starter
from train.data.unreadable import leave_out_unreadable


def open_manifest(task_id: str, root: str | Path, check: bool = True) -> Manifest:
    """Read the data set under `root`, whichever of the known layouts it has.

    Starter set (manifest.csv), official COVID-QU-Ex (`cxr`), official LC25000 (`histopathology`),
    or Parquet (`train.data.parquet`), of which `root` may also be a URL or an id on the Hub.
    check: leave out images that cannot be read (`train.data.unreadable`).
    Raises `DataError` when the folder is missing or holds none of them.
    """
    manifest = _read_any(get_task(task_id), root)
    return leave_out_unreadable(manifest) if check else manifest


def _read_any(task: Task, root: str | Path) -> Manifest:
    if is_parquet(root):
        return read_parquet(root, task)
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist; name it with --data.")
    if (root / "manifest.csv").is_file():
        return read_starter(root, task)
    if (root / task.id / "manifest.csv").is_file():
        return read_starter(root / task.id, task)
    return {"cxr": read_covid_qu_ex, "histopathology": read_lc25000}[task.id](root)
