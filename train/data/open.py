"""Opening a data set, whichever of the known layouts it has."""

from collections.abc import Callable
from pathlib import Path

from kdmodels.tasks import Task, get_task
from train.data.covid_qu_ex import read_covid_qu_ex
from train.data.folders import read_folders
from train.data.lc25000 import read_lc25000
from train.data.manifest import DataError, Manifest
from train.data.parquet import is_parquet, read_parquet
from train.data.table import read_table
from train.data.unreadable import leave_out_unreadable

# By the name that a task file gives (`kdmodels.tasks.task.Layout`).
READERS: dict[str, Callable[[Path, Task], Manifest]] = {
    "folders": read_folders,
    "covid-qu-ex": lambda root, _: read_covid_qu_ex(root),
    "lc25000": lambda root, _: read_lc25000(root),
}


def open_manifest(task_id: str, root: str | Path, check: bool = True) -> Manifest:
    """Read the data set under `root`, whichever of the known layouts it has.

    A table (manifest.csv, here or in a folder with the task's id, or another file that `root`
    names), the layout that the task file names (class folders, or an official data set), or
    Parquet (`train.data.parquet`), of which `root` may also be a URL or an id on the Hub.
    check: leave out images that cannot be read (`train.data.unreadable`).
    Raises `DataError` when the folder is missing or holds none of them.
    """
    manifest = _read_any(get_task(task_id), root)
    return leave_out_unreadable(manifest) if check else manifest


def _read_any(task: Task, root: str | Path) -> Manifest:
    table = Path(root).expanduser()
    if table.suffix.lower() == ".csv" and table.is_file():
        return read_table(table, task)
    if is_parquet(root):
        return read_parquet(root, task)
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"The data folder {root} does not exist; name it with --data.")
    if (root / "manifest.csv").is_file():
        return read_table(root / "manifest.csv", task)
    if (root / task.id / "manifest.csv").is_file():
        return read_table(root / task.id / "manifest.csv", task)
    return READERS[task.layout](root, task)
