"""`train.release.timm_folder`: timm itself builds the network from the folder, and it answers alike."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from kdmodels.images.preprocess import to_input
from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import build_model
from kdmodels.tasks import get_task
from tests.conftest import unstored
from train.release.timm_folder import is_known_to_timm, write_timm_folder

SIDE = 64


@pytest.fixture(params=[("cxr", "visformer_s"), ("histopathology", "autoformerv2_t")])
def stored(request, tmp_path):
    """A row and its network, stored as int8 and loaded again."""
    task, model = request.param
    index = Index(tmp_path / "weights")
    row = replace(unstored(task, model), storage="int8", input_size=SIDE)
    row = index.store(row, build_model(model, len(row.classes), SIDE).state_dict())
    return row, index.load(row)


def test_timm_loads_the_folder_and_answers_alike(stored, tmp_path):
    row, network = stored
    task, folder = get_task(row.task), tmp_path / "folder"
    images = torch.linspace(-2, 2, 2 * 3 * SIDE * SIDE).reshape(2, 3, SIDE, SIDE)
    assert is_known_to_timm(network)
    write_timm_folder(row, network, folder)
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {
        torch.float32
    } | (
        {torch.int64} if row.model == "visformer_s" else set()  # counters of batch normalisation
    )

    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        answers = theirs(images)
        # in timm's layout of memory, so that nothing but the weights can make a difference
        assert torch.equal(answers, network.to(memory_format=torch.contiguous_format)(images))
    assert answers.shape == (2, task.num_classes) and answers.std() > 0
    assert tuple(theirs.pretrained_cfg["label_names"]) == row.classes

    # nothing of the weights that timm itself has under this name
    told = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert told["license"] is None and told["tag"] == row.stem
    assert not {"url", "file", "hf_hub_id", "origin_url"} & told.keys()

    config = timm.data.resolve_model_data_config(theirs)
    assert config["input_size"] == (3, SIDE, SIDE)
    transform = timm.data.create_transform(**config)
    image = Image.effect_noise((90, 70), 60).convert("RGB")
    image.paste((200, 30, 90), (10, 10, 60, 30))
    seen = image.convert("L").convert("RGB") if task.greyscale else image
    torch.testing.assert_close(
        transform(seen)[None], to_input(image, task, row.spec), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("model", ["vgg19", "ofa_595"])
def test_networks_that_timm_would_build_otherwise_are_told_apart(model):
    assert not is_known_to_timm(build_model(model, 3))
