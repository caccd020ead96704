"""`kdmodels.lungs.stored`: the file that the index lists, verified, in whichever engine."""

import pytest
import torch
from PIL import Image

from kdmodels.lungs.stored import open_runner, stored_finder
from kdmodels.lungs.unet import SIDE, LungNet, standardised
from kdmodels.models.checkpoints import WEIGHTS, CheckpointError, Index, LungWeights
from tests.phantom import chest_phantom

ROW = LungWeights("", "", 0, "films@0", "2026-11-27", 0, limit=0.5)


@pytest.fixture
def network() -> LungNet:
    torch.manual_seed(0)
    return LungNet().eval()


@pytest.fixture
def folder(network, tmp_path):
    Index(tmp_path).write()
    Index.read(tmp_path).store_lungs(ROW, network.state_dict())
    return tmp_path


def test_what_was_stored_answers_as_before(network, folder):
    row = Index.read(folder).lungs
    assert (row.file, row.limit) == ("lungs.safetensors", 0.5)
    picture = Image.linear_gradient("L")
    film = standardised(torch.arange(SIDE, dtype=torch.float32).expand(1, 1, SIDE, SIDE).mT)
    with torch.inference_mode():
        wanted = network(film).sigmoid()[0, 0]
    finder = stored_finder(folder)
    assert finder.limit == 0.5
    assert finder(picture).shares == pytest.approx(wanted.numpy(), abs=0.05)  # eight bits


def test_other_checkpoints_are_kept_and_lungs_too(folder, tiny_models, new_row):
    from kdmodels.models.zoo import build_model

    before = Index.read(folder)
    row = new_row("cxr", "ofa_595")
    before.store(row, build_model("ofa_595", len(row.classes)).state_dict())
    now = Index.read(folder)
    assert now.lungs == before.lungs
    assert [file.file for file in now.files] == [now.checkpoints[0].file, "lungs.safetensors"]


def test_a_changed_file_is_refused(folder):
    file = folder / "lungs.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"lungs\.safetensors has the sha256"):
        stored_finder(folder)


def test_a_file_of_another_network_is_refused(folder):
    Index.read(folder).store_lungs(ROW, torch.nn.Conv2d(1, 1, 3).state_dict())
    with pytest.raises(CheckpointError, match="does not hold a lung finder"):
        stored_finder(folder)


def test_an_index_without_lungs_has_no_finder(tmp_path):
    Index(tmp_path).write()
    assert stored_finder(tmp_path) is None


def test_openvino_gives_what_torch_gives(network, monkeypatch):
    films = torch.randn(1, 1, SIDE, SIDE)
    monkeypatch.setenv("KD_ENGINE", "openvino")
    run = open_runner(network)
    assert run is not network
    with torch.inference_mode():
        assert run(films).numpy() == pytest.approx(network(films).numpy(), abs=1e-3)


@pytest.mark.skipif(Index.read(WEIGHTS).lungs is None, reason="no lung finder is stored")
def test_the_stored_finder_finds_the_lungs_of_a_drawn_chest_and_none_elsewhere():
    finder = stored_finder()
    assert Index.read().lungs.bytes < 3_000_000
    lungs = finder(chest_phantom())
    assert lungs.found
    assert 0.1 < lungs.mask.mean() < 0.5
    assert finder(Image.new("RGB", (200, 200), "grey")).reason
    assert finder(Image.effect_noise((200, 200), 60)).reason
