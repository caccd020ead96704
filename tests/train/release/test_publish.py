"""`train.release.publish`: what went up comes down again, to the bit, through the Hub's real client."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, close_session, constants, hf_hub_download

from kdmodels.lungs.unet import LungNet
from kdmodels.models.checkpoints import CheckpointError, Index, LungWeights
from kdmodels.models.zoo import build_model
from kdmodels.tasks import TASKS, Task
from tests.hub import TOKENS, HubStandIn
from train.__main__ import main
from train.release.publish import PublishError, publish, tag_of

REPO = "someone/models"
WRITER, READER = TOKENS


@pytest.fixture
def hub(use_hub, monkeypatch):
    """A stand-in for the Hub that the client talks to, logged in as one who may write."""
    with HubStandIn() as server:
        use_hub(server.address)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield server


@pytest.fixture
def small_index(new_row, tmp_path):
    """Three checkpoints of tiny networks: a teacher, its student, and the control."""
    index = Index(tmp_path / "weights")
    for by, model, teacher in ((0, "vgg19", None), (0.5, "ofa_595", "vgg19"), (0, "ofa_595", None)):
        state = {k: v + by for k, v in build_model(model, 3).state_dict().items()}
        index.store(new_row("cxr", model, teacher), state)
    return Index.read(index.folder)


def logits(index: Index) -> list[torch.Tensor]:
    images = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    return [index.load(row)(images) for row in index.checkpoints]


def cloned(index: Index, folder: Path) -> Index:
    """A clone without weights files: a new folder with `index.json` alone."""
    folder.mkdir()
    (folder / "index.json").write_bytes((index.folder / "index.json").read_bytes())
    return Index.read(folder)


def changed(index: Index, by: float) -> Index:
    """Store other weights for the student."""
    row = index.find("cxr", "ofa_595", "vgg19")
    state = {k: v + by for k, v in build_model("ofa_595", 3).state_dict().items()}
    index.store(row, state)
    return Index.read(index.folder)


# --- up and down -------------------------------------------------------------------------


def test_a_clone_without_weights_answers_as_the_one_that_published(small_index, hub, tmp_path):
    before = logits(small_index)
    commit = publish(small_index, (), REPO)
    pinned = Index.read(small_index.folder)
    assert (pinned.hub_repo, pinned.hub_revision) == (REPO, commit)
    assert hub.repos[REPO].branches["main"] == commit
    clone = cloned(pinned, tmp_path / "clone")
    for mine, theirs in zip(before, logits(clone), strict=True):
        assert torch.equal(mine, theirs)
    assert [f.name for f in clone.folder.iterdir()] == ["index.json"]
    fetched = [p for method, p in hub.requests if method == "GET" and "/cdn/" in p]
    assert fetched == [f"/cdn/{row.sha256}" for row in clone.checkpoints]


def test_the_repository_holds_the_weights_the_index_and_a_card_of_each(small_index, hub, tmp_path):
    (tmp_path / "confusion-cxr-vgg19.png").write_bytes(b"a picture")
    publish(small_index, (), REPO, figures=tmp_path)
    stems = [row.stem for row in small_index.checkpoints]
    assert hub.names(REPO) == sorted(
        [
            ".gitattributes",
            "README.md",
            "figures/confusion-cxr-vgg19.png",
            "index.json",
            *(f"{stem}.safetensors" for stem in stems),
            *(f"models/{stem}.md" for stem in stems),
        ]
    )
    for row in small_index.checkpoints:
        content = (small_index.folder / row.file).read_bytes()
        assert hub.content(REPO, "main", row.file) == content
    card = hub.content(REPO, "main", "models/cxr-vgg19.md").decode()
    assert "(../figures/confusion-cxr-vgg19.png)" in card


def test_the_lung_finder_goes_up_and_comes_down_and_goes_when_it_is_listed_no_more(
    small_index, hub, tmp_path
):
    torch.manual_seed(0)
    tag = tag_of(small_index)
    small_index.store_lungs(
        LungWeights("", "", 0, "films@0", "2026-11-27", 0, 0.5), LungNet().state_dict()
    )
    index = Index.read(small_index.folder)
    assert tag_of(index) != tag
    publish(index, (), REPO)
    clone = cloned(Index.read(index.folder), tmp_path / "clone")
    assert clone.locate(clone.lungs).read_bytes() == index.locate(index.lungs).read_bytes()
    publish(replace(Index.read(index.folder), lungs=None), (), REPO)
    assert "lungs.safetensors" not in HfApi().list_repo_files(REPO)


def test_the_published_index_pins_itself_by_a_tag(small_index, hub):
    commit = publish(small_index, (), REPO)
    folder = Path(hf_hub_download(REPO, "index.json")).parent
    theirs = Index.read(folder)
    assert (theirs.hub_repo, theirs.hub_revision) == (REPO, tag_of(small_index))
    assert hub.repos[REPO].tags == {tag_of(small_index): commit}
    assert theirs.checkpoints == small_index.checkpoints
    for mine, other in zip(logits(small_index), logits(theirs), strict=True):
        assert torch.equal(mine, other)


def test_an_own_task_goes_up_and_comes_down_with_its_weights(hub, new_row, tmp_path, monkeypatch):
    task = Task(id="shapes", name="Shapes", classes=["circle", "square"])
    monkeypatch.setitem(TASKS, task.id, task)
    index = Index(tmp_path / "weights")
    index.store(new_row("shapes", "ofa_595"), build_model("ofa_595", 2).state_dict())
    index = Index.read(index.folder)
    publish(index, (), REPO)
    mine = logits(index)
    del TASKS["shapes"]  # on another machine, where the code of the card makes it known
    card = hub.content(REPO, "main", "models/shapes-ofa_595-labels.md").decode()
    seen: dict = {}
    exec(card.partition("```python")[2].partition("```")[0], seen)
    assert TASKS["shapes"] == task
    assert torch.equal(logits(seen["index"])[0], mine[0])


def test_an_older_revision_gives_the_older_bytes(small_index, hub, tmp_path):
    publish(small_index, (), REPO)
    old, before = cloned(small_index, tmp_path / "old"), logits(small_index)
    newer = changed(small_index, by=1.0)
    second = publish(newer, (), REPO)
    new = cloned(newer, tmp_path / "new")
    assert (new.hub_revision, len(hub.repos[REPO].tags)) == (
        second,
        2,
    ) and old.hub_revision != second
    assert all(map(torch.equal, logits(old), before))
    assert not torch.equal(logits(new)[1], before[1])
    assert all(map(torch.equal, logits(new), logits(newer)))


def test_publishing_the_same_again_makes_no_commit(small_index, hub):
    first = publish(small_index, (), REPO)
    commits = len(hub.repos[REPO].commits)
    assert publish(Index.read(small_index.folder), (), REPO) == first
    assert len(hub.repos[REPO].commits) == commits


def test_what_is_no_longer_listed_goes_and_what_others_put_there_stays(small_index, hub):
    publish(small_index, (), REPO)
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="notes/mine.md", repo_id=REPO)
    gone = small_index.checkpoints[-1]
    publish(replace(small_index, checkpoints=small_index.checkpoints[:-1]), (), REPO)
    names = hub.names(REPO)
    assert gone.file not in names and f"models/{gone.stem}.md" not in names
    assert "notes/mine.md" in names and small_index.checkpoints[0].file in names


def test_checkpoints_that_are_only_on_the_hub_are_published_too(small_index, hub, tmp_path):
    publish(small_index, (), REPO)
    clone = cloned(small_index, tmp_path / "clone")
    publish(clone, (), "someone/copy")
    for row in clone.checkpoints:
        content = (small_index.folder / row.file).read_bytes()
        assert hub.content("someone/copy", "main", row.file) == content
    assert Index.read(clone.folder).hub_repo == "someone/copy"


def test_a_row_stored_during_the_upload_is_kept(small_index, hub, monkeypatch):
    create_tag = HfApi.create_tag

    def store_meanwhile(*arguments, **options):
        changed(small_index, by=2.0)
        return create_tag(*arguments, **options)

    monkeypatch.setattr(HfApi, "create_tag", store_meanwhile)
    commit = publish(small_index, (), REPO)
    now = Index.read(small_index.folder)
    assert now.hub_revision == commit
    assert now.checkpoints[1].sha256 != small_index.checkpoints[1].sha256


# --- what comes down wrong, or not -------------------------------------------------------


def test_other_bytes_of_the_same_size_are_refused(small_index, hub, tmp_path):
    publish(small_index, (), REPO)
    clone = cloned(small_index, tmp_path / "clone")
    row = clone.checkpoints[1]
    content = bytearray(hub.blobs[row.sha256])
    content[-1] ^= 1
    hub.blobs[row.sha256] = bytes(content)  # and the Hub still says that it is the old file
    with pytest.raises(
        CheckpointError, match=rf"has the sha256 \w+… instead of {row.sha256[:12]}…"
    ):
        clone.load(row)
    clone.load(clone.checkpoints[0])


def test_without_the_hub_what_is_in_the_folder_serves_and_the_rest_is_named(
    small_index, hub, tmp_path
):
    commit = publish(small_index, (), REPO)
    clone = cloned(small_index, tmp_path / "clone")
    hub.__exit__()
    assert len(logits(Index.read(small_index.folder))) == 3
    started = time.perf_counter()
    row = clone.checkpoints[0]
    with pytest.raises(CheckpointError, match=rf"{row.file} is not in .* from {REPO} at {commit}"):
        clone.load(row)
    assert time.perf_counter() - started < 10


def test_a_private_repository_needs_a_token(small_index, hub, tmp_path, monkeypatch):
    publish(small_index, (), REPO, private=True)
    assert hub.repos[REPO].private
    clone = cloned(small_index, tmp_path / "clone")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=r"could not be fetched.*RepositoryNotFound"):
        clone.load(clone.checkpoints[0])
    monkeypatch.setenv("HF_TOKEN", READER)
    clone.load(clone.checkpoints[0])


# --- what does not go up -----------------------------------------------------------------


def refused(index: Index, repo: str = REPO, **options) -> str:
    """The sentence with which publishing is refused; the local index is as it was."""
    before = (index.folder / "index.json").read_bytes()
    started = time.perf_counter()
    with pytest.raises(PublishError) as caught:
        publish(index, (), repo, **options)
    assert time.perf_counter() - started < 10
    assert (index.folder / "index.json").read_bytes() == before
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("name", ["models", "a/b/c", "someone/", "/models", "some one/models",
                                  "someone/mo--dels", "someone/models.git", ""])  # fmt: skip
def test_a_malformed_name_is_refused_before_anything_is_asked(small_index, hub, name):
    message = refused(small_index, name)
    assert message.startswith(f"'{name}' is no repository of the Hub; write owner/name")
    assert hub.requests == []


def test_without_a_login_it_says_how_to_log_in(small_index, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "you are not logged in; run `hf auth login`" in refused(small_index)
    assert hub.repos == {}


def test_a_token_that_the_hub_does_not_know_is_named(small_index, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the Hub does not accept the token" in refused(small_index)


def test_a_token_that_may_not_write_is_named(small_index, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "this token may not write there" in refused(small_index)  # a new repository
    monkeypatch.setenv("HF_TOKEN", WRITER)
    publish(small_index, (), REPO)
    monkeypatch.setenv("HF_TOKEN", READER)
    changed(small_index, by=1.0)
    index = Index.read(small_index.folder)
    assert "this token may not write there" in refused(index)  # one that is there


def test_an_owner_that_is_not_mine_is_refused(small_index, hub):
    message = refused(small_index, "somebody-else/models")
    assert message.startswith("somebody-else/models could not be published: this token may not")


def test_a_hub_that_is_down_is_told_soon(small_index, hub):
    hub.__exit__()
    assert "the Hub cannot be reached (ConnectError)" in refused(small_index)


def test_offline_mode_is_told(small_index, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()  # the client looks at it when it is made
    assert "HF_HUB_OFFLINE is set" in refused(small_index)


def test_a_public_repository_does_not_become_private_by_publishing(small_index, hub):
    publish(small_index, (), REPO)
    before = dict(hub.repos[REPO].branches)
    index = changed(small_index, by=1.0)
    assert f"{REPO} is public; make it private" in refused(index, private=True)
    assert hub.repos[REPO].branches == before


def test_a_licence_that_the_hub_does_not_know_is_told(small_index, hub):
    assert "license" in refused(small_index, licence="do-as-you-like")
    publish(small_index, (), REPO, licence="cc-by-4.0")
    assert b"license: cc-by-4.0" in hub.content(REPO, "main", "README.md")


@pytest.mark.parametrize("uploads", [0, 1, 2])
def test_an_upload_that_breaks_off_changes_nothing_and_can_be_taken_up(
    small_index, hub, tmp_path, uploads
):
    hub.uploads_left = uploads
    assert "Error while uploading" in refused(small_index)
    assert hub.names(REPO) == [".gitattributes"] and hub.repos[REPO].tags == {}
    hub.uploads_left, hub.requests[:] = None, []
    publish(small_index, (), REPO)
    puts = [path for method, path in hub.requests if method == "PUT"]
    assert len(puts) == 3 - uploads  # what is there already is not sent again
    assert len(logits(cloned(small_index, tmp_path / "clone"))) == 3


def test_a_damaged_checkpoint_is_not_published(small_index, hub):
    row = small_index.checkpoints[1]
    file = small_index.folder / row.file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{row.file} has .* bytes instead of"):
        publish(small_index, (), REPO)
    assert hub.names(REPO) == [".gitattributes"]


def test_an_empty_index_is_refused(tmp_path, hub):
    index = Index(tmp_path)
    index.write()
    assert "lists no checkpoint to publish" in refused(index)


# --- a look beforehand, and the command ---------------------------------------------------


def test_a_dry_run_writes_what_would_go_up_and_asks_nobody(small_index, hub, tmp_path):
    before = (small_index.folder / "index.json").read_bytes()
    assert publish(small_index, (), REPO, dry_run=tmp_path / "look") is None
    assert hub.requests == [] and (small_index.folder / "index.json").read_bytes() == before
    publish(small_index, (), REPO)
    written = {
        str(f.relative_to(tmp_path / "look" / "main")): f.read_bytes()
        for f in (tmp_path / "look" / "main").rglob("*")
        if f.is_file()
    }
    assert sorted([*written, ".gitattributes"]) == hub.names(REPO)
    for name, content in written.items():
        assert hub.content(REPO, "main", name) == content, name
    assert "is not an empty folder" in refused(small_index, dry_run=tmp_path / "look")


def test_the_command_says_what_is_wrong_in_one_sentence(capsys):
    assert main(["publish", "--repo", "no-owner"]) == 2
    assert capsys.readouterr().err.startswith("error: 'no-owner' is no repository of the Hub")
