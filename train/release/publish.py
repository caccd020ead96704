"""Publish: every checkpoint of an index as one model repository of the Hub, and the pin to it.

    main              the safetensors, index.json, README.md, models/<checkpoint>.md, figures/
    timm-<checkpoint> config.json and model.safetensors, where timm knows the architecture: timm
                      takes one model from the root of a revision, hence a branch for each

All of `main` goes up as one commit. The local index then pins that commit. The uploaded index
cannot hold its own commit's name, so it pins a tag whose name is made of the weights' sha256, which
is set on the commit. A new upload never changes what an earlier commit or tag gives.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import count_macs, count_parameters
from kdmodels.tasks import TASKS
from train.measure.task_numbers import TaskNumbers
from train.release.model_cards import Place, Sheet, figures_of, model_card, repo_card
from train.release.timm_folder import is_known_to_timm, write_timm_folder

log = logging.getLogger("train")

MAIN = "main"
Files = dict[str, Path | bytes]  # path in the repository -> file, or content
# What an earlier publication may have put into `main`; nothing else there is ever deleted.


class PublishError(Exception):
    """Publishing failed; the message says why and what to do. The local index is as it was."""


class Target(Protocol):
    """Where files go: the Hub, or a folder for a look beforehand."""

    def put(self, branch: str, files: Files, message: str) -> str:
        """Make `files` the content of a branch, as one commit; return the commit's sha."""

    def tag(self, name: str, commit: str) -> None:
        """Give a commit a name that stays."""


def _is_ours(name: str) -> bool:
    """Whether it is called as what this project puts on the main branch."""
    tasks = "|".join(TASKS)
    ours = rf"(({tasks})-[^/]+|lungs)\.safetensors|tasks/({tasks})\.yaml|models/[^/]+\.md|figures/[^/]+"
    return re.fullmatch(ours, name) is not None


@dataclass(frozen=True)
class FolderTarget:
    """Writes a folder for each branch. Raises `PublishError` when there is something already."""

    folder: Path

    def __post_init__(self) -> None:
        if self.folder.is_file() or (self.folder.is_dir() and any(self.folder.iterdir())):
            raise PublishError(f"{self.folder} is not an empty folder; name a new one.")

    def put(self, branch: str, files: Files, message: str) -> str:
        try:
            for name, content in files.items():
                file = self.folder / branch / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    file.write_bytes(content)
                else:
                    shutil.copyfile(content, file)
        except OSError as error:
            raise PublishError(f"{file} cannot be written: {error.strerror}.") from error
        return ""

    def tag(self, name: str, commit: str) -> None:
        pass


@dataclass(frozen=True)
class HubTarget:
    """A model repository of the Hub, created if need be, with the token that `hf auth login` keeps.

    Raises `PublishError` when it is to be private and is public.
    """

    repo: str
    private: bool = False
    api: HfApi = field(default_factory=HfApi)

    def __post_init__(self) -> None:
        with _in_words(self.repo):
            self.api.whoami()  # says at once when there is no network or no valid token
            # None: as the owner's settings want it, for a new repository
            self.api.create_repo(self.repo, private=self.private or None, exist_ok=True)
            public = not self.api.model_info(self.repo).private
        if self.private and public:
            raise PublishError(
                f"{self.repo} is public; make it private in its settings on the Hub first, or "
                "leave out --private."
            )

    def put(self, branch: str, files: Files, message: str) -> str:
        with _in_words(self.repo):
            if branch != MAIN:
                self.api.create_branch(self.repo, branch=branch, exist_ok=True)
            there = self.api.list_repo_files(self.repo, revision=branch)
            gone = {f for f in there if f not in files and (branch != MAIN or _is_ours(f))}
            operations = [
                *(CommitOperationDelete(name) for name in sorted(gone - {".gitattributes"})),
                *(CommitOperationAdd(name, content) for name, content in files.items()),
            ]
            return self.api.create_commit(
                self.repo, operations, commit_message=message, revision=branch
            ).oid

    def tag(self, name: str, commit: str) -> None:
        with _in_words(self.repo):
            self.api.create_tag(self.repo, tag=name, revision=commit, exist_ok=True)


def check_repo_name(repo: str) -> None:
    """Raise `PublishError` unless `repo` is `owner/name` as the Hub writes it."""
    try:
        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise HFValidationError("there must be one slash")
    except HFValidationError as error:
        raise PublishError(
            f"'{repo}' is no repository of the Hub; write owner/name, of letters, digits, '-', "
            f"'_' and '.' ({str(error).rstrip('.')})."
        ) from error


def tag_of(index: Index) -> str:
    """The name of the tag for an index's weights: the same for the same files and bytes."""
    lines = sorted(f"{row.file} {row.sha256}\n" for row in index.files)
    return f"weights-{hashlib.sha256(''.join(lines).encode()).hexdigest()[:12]}"


def publish(
    index: Index,
    tasks: Sequence[TaskNumbers],
    repo: str,
    private: bool = False,
    licence: str | None = None,
    dry_run: Path | None = None,
    api: HfApi | None = None,
    figures: Path | None = None,
) -> str | None:
    """Publish an index's checkpoints as the Hub's `repo` (owner/name) and pin them in the index.

    Every file is verified and loaded first. tasks: what the cards tell of the checkpoints' answers.
    licence: the Hub's id of one, such as `cc-by-4.0`. dry_run: write all that would go up into
    this folder instead, and change nothing else. figures: folder of PNGs that go up too. Returns the
    sha of the commit (None of a dry run). Raises `PublishError` and `CheckpointError`.
    """
    check_repo_name(repo)
    if not index.checkpoints:
        raise PublishError(f"{index.folder / 'index.json'} lists no checkpoint to publish.")
    place = Place(repo, tag_of(index), index, tasks, licence)
    pictures = sorted(figures.glob("*.png")) if figures else []
    if dry_run:
        _put_all(FolderTarget(dry_run), place, pictures)
        log.info("All that would be published as %s is in %s.", repo, dry_run)
        return None
    target = HubTarget(repo, private, api or HfApi())
    commit = _put_all(target, place, pictures)
    target.tag(tag_of(index), commit)
    # Read again: an upload takes minutes, in which a run may have stored another checkpoint.
    now = Index.read(index.folder)
    replace(now, hub_repo=repo, hub_revision=commit).write()
    log.info("%d checkpoints are on the Hub as %s at %s.", len(index.checkpoints), repo, commit)
    return commit


def _put_all(target: Target, place: Place, pictures: Sequence[Path]) -> str:
    """Put the branches for timm, then `main`, which names them; return the commit of `main`."""
    index, sheets = place.index, []
    for row in index.checkpoints:
        model = index.load(row)
        macs = count_macs(model, row.spec.input_size)
        sheet = Sheet(row, count_parameters(model), macs)
        if is_known_to_timm(model):
            sheet = replace(sheet, timm=f"timm-{row.stem}")
            card = model_card(sheet, place, for_timm=True)
            with TemporaryDirectory() as folder:
                write_timm_folder(row, model, Path(folder))
                files = {file.name: file for file in Path(folder).iterdir()}
                files |= {"README.md": card.encode()}
                target.put(sheet.timm, files, f"{row.name} for timm, sha256 {row.sha256[:12]}")
        sheets.append(sheet)
        log.info("%s is checked.", row.file)
    with TemporaryDirectory() as folder:
        pinned = replace(
            index, folder=Path(folder), hub_repo=place.repo, hub_revision=place.revision
        )
        pinned.write()
        files = dict(_main_files(place, sheets, pictures))
        files["index.json"] = Path(folder, "index.json").read_bytes()
        for file in (index.folder / "tasks").glob("*.yaml"):
            files[f"tasks/{file.name}"] = file
        size = sum(row.bytes for row in index.checkpoints) / 1e6
        message = f"{len(sheets)} checkpoints, {size:.0f} MB ({place.revision})"
        return target.put(MAIN, files, message)


def _main_files(
    place: Place, sheets: list[Sheet], pictures: Sequence[Path]
) -> Iterator[tuple[str, Path | bytes]]:
    names = [file.name for file in pictures]
    shown = {sheet.row.stem: figures_of(sheet.row, names) for sheet in sheets}
    for file in pictures:
        yield f"figures/{file.name}", file
    for sheet in sheets:
        row = sheet.row
        yield row.file, place.index.locate(row)
        yield f"models/{row.stem}.md", model_card(sheet, place, shown[row.stem]).encode()
    if lungs := place.index.lungs:
        yield lungs.file, place.index.locate(lungs)
    others = [name for name in names if not any(name in of for of in shown.values())]
    yield "README.md", repo_card(sheets, place, others).encode()


_STATUS = {
    401: "the Hub does not accept the token; run `hf auth login` again, or set HF_TOKEN to a "
    "valid one",
    403: "this token may not write there; ask the owner for access, or use a token that may write",
    404: "the Hub knows no such owner or repository",
    409: "somebody else changed the repository meanwhile; start again",
    412: "somebody else changed the repository meanwhile; start again",
    429: "the Hub had too many requests; wait some minutes and start again",
}


@contextmanager
def _in_words(repo: str) -> Iterator[None]:
    """Turn errors of the Hub's client into a `PublishError`."""
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # the last: of an upload
        raise PublishError(_sentence(error, repo)) from error


def _sentence(error: BaseException, repo: str) -> str:
    """What went wrong, from an error of the Hub's client and those that caused it."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    start = f"{repo} could not be published: "
    for one in chain:
        if isinstance(one, LocalTokenNotFoundError):
            return f"{start}you are not logged in; run `hf auth login`, or set HF_TOKEN."
        if isinstance(one, OfflineModeIsEnabled):
            return f"{start}HF_HUB_OFFLINE is set; unset it to publish."
        if isinstance(one, HfHubHTTPError):
            status = one.response.status_code
            says = _STATUS.get(status) or f"the Hub answered {status} ({_one_line(error)})"
            return f"{start}{says}."
        if isinstance(one, HTTPError):
            return (
                f"{start}the Hub cannot be reached ({type(one).__name__}); check the network and "
                "start again."
            )
    return f"{start}{_one_line(error)}."


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
