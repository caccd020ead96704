"""`train.learn.teachers`: a frozen teacher says what its network says, of images at its own size."""

from dataclasses import replace

import pytest
import torch

from kdmodels.images.preprocess import normalise
from kdmodels.models.checkpoints import CheckpointError, Index
from kdmodels.models.classmaps import class_maps, tapped
from kdmodels.models.zoo import TEACHERS, build_model
from train.learn.teachers import Teacher, load_teachers

CPU = torch.device("cpu")
ALL = "+".join(TEACHERS)


@pytest.fixture
def make_teacher(tiny_models):
    def make(model: str = "vgg19", size: int = 32, bf16: bool = False) -> Teacher:
        teacher = Teacher(build_model(model, 3), tiny_models[model], "ab" * 32, size, bf16)
        teacher.to(CPU)
        return teacher

    return make


def pixels_of(number: int = 3, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (number, 3, side, side), generator=generator, dtype=torch.uint8)


LABELS = torch.tensor([2, 0, 1])


# --- What it says ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", TEACHERS)
def test_a_teacher_says_what_its_network_says_of_normalised_pixels(make_teacher, model):
    teacher = make_teacher(model)
    found = teacher(pixels_of(), LABELS)
    images = normalise(pixels_of(), teacher.spec.mean, teacher.spec.std)
    with torch.no_grad(), tapped(teacher.model, teacher.spec) as tap:
        logits = teacher.model(images)
        maps = class_maps(teacher.model, teacher.spec, tap["features"])
    assert torch.equal(found.logits, logits)
    assert torch.equal(found.maps, torch.stack([maps[i, k] for i, k in enumerate(LABELS)]))
    torch.testing.assert_close(found.maps.mean((1, 2)), logits[range(3), LABELS])


def test_pixels_may_be_mixed_ones(make_teacher):
    """Mixup makes floats of them; the answers to whole numbers stay the same."""
    teacher, pixels = make_teacher(), pixels_of()
    assert torch.equal(teacher(pixels.float(), LABELS).logits, teacher(pixels, LABELS).logits)
    half = (pixels.float() + pixels.roll(1, 0).float()) / 2
    images = normalise(half, teacher.spec.mean, teacher.spec.std)
    assert torch.equal(teacher(half, LABELS).logits, teacher.model(images))


@pytest.mark.parametrize("model", TEACHERS)
def test_images_reach_the_network_at_the_teachers_size(make_teacher, model):
    teacher, seen = make_teacher(model, size=40), []
    teacher.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    for side in (24, 40, 64):
        answers = teacher(pixels_of(3, side), LABELS)
        assert (answers.logits.shape, answers.maps.shape) == ((3, 3), (3, 10, 10))
    assert seen == [(3, 3, 40, 40)] * 3


def test_smaller_images_are_smoothed_and_not_picked_from(make_teacher):
    """A pattern finer than the teacher's pixels must come out grey."""
    teacher, seen = make_teacher(size=32), []
    teacher.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stripes = torch.zeros(3, 3, 128, 128)
    stripes[..., ::2] = 255
    teacher(stripes, LABELS)
    grey = normalise(torch.full((3, 3, 32, 32), 127.5), teacher.spec.mean, teacher.spec.std)
    torch.testing.assert_close(seen[0][..., 2:-2], grey[..., 2:-2], atol=0.02, rtol=0)


def test_bf16_is_near_float32_and_comes_out_as_float32(make_teacher):
    exact, rough = (make_teacher(bf16=bf16)(pixels_of(), LABELS) for bf16 in (False, True))
    for one, other in ((exact.logits, rough.logits), (exact.maps, rough.maps)):
        assert one.dtype == other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.05 * one.norm()


# --- Frozen ----------------------------------------------------------------------------------


def test_a_teacher_is_frozen(make_teacher):
    teacher = make_teacher()
    teacher.model.train().requires_grad_(True)
    teacher.to(CPU)
    assert not any(module.training for module in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert teacher.model.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_answers_carry_no_gradient_and_leave_no_trace(make_teacher):
    teacher = make_teacher()
    teacher.model.requires_grad_(True)
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    answers = teacher(pixels_of(), LABELS)
    assert not answers.logits.requires_grad and not answers.maps.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in teacher.model.state_dict().items())
    assert not any(module._forward_hooks for module in teacher.model.modules())


# --- From the index --------------------------------------------------------------------------


def test_the_teachers_of_a_recipe_are_loaded_in_its_order(tiny_index, make_recipe):
    recipe = make_recipe(objective="multi_teacher", teacher="autoformerv2_t+vgg19")
    teachers = load_teachers(recipe, tiny_index, "float32")
    assert [t.spec.id for t in teachers] == ["autoformerv2_t", "vgg19"]
    for teacher in teachers:
        row = tiny_index.find("cxr", teacher.spec.id)
        assert (teacher.sha256, teacher.size) == (row.sha256, 32)
        wanted = tiny_index.load(row)(normalise(pixels_of(), row.spec.mean, row.spec.std))
        torch.testing.assert_close(teacher(pixels_of(), LABELS).logits, wanted)


def test_a_recipe_without_a_teacher_loads_none(tiny_index, make_recipe):
    assert load_teachers(make_recipe(), tiny_index) == ()


def test_the_size_is_the_recipes_else_the_one_the_weights_were_finished_on(tiny_index, make_recipe):
    row = tiny_index.find("cxr", "vgg19")
    state = tiny_index.load(row).state_dict()
    tiny_index.store(replace(row, input_size=48), state)
    index = Index.read(tiny_index.folder)
    hybrid = dict(objective="hybrid", teacher="vgg19")
    (own,) = load_teachers(make_recipe(**hybrid), index)
    (asked,) = load_teachers(make_recipe(**hybrid, teacher_size=24), index)
    assert (own.size, asked.size) == (48, 24)


@pytest.mark.parametrize("precision, bf16", [("float32", False), ("bf16", True)])
def test_the_precision_is_the_one_that_is_named(tiny_index, make_recipe, precision, bf16):
    recipe = make_recipe(objective="multi_teacher", teacher=ALL)
    assert [t.bf16 for t in load_teachers(recipe, tiny_index, precision)] == [bf16] * 3


def test_a_teacher_that_is_not_stored_is_named(tiny_index, make_recipe):
    kept = tuple(c for c in tiny_index.checkpoints if c.model != "visformer_s")
    recipe = make_recipe(objective="multi_teacher", teacher=ALL)
    with pytest.raises(CheckpointError, match="lists no visformer_s for the task 'cxr'"):
        load_teachers(recipe, replace(tiny_index, checkpoints=kept))


def test_damaged_weights_teach_nobody(tiny_index, make_recipe):
    file = tiny_index.folder / tiny_index.find("cxr", "vgg19").file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load_teachers(make_recipe(objective="hybrid", teacher="vgg19"), tiny_index)
