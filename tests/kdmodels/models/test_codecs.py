"""`kdmodels.models.codecs`: what comes back is as near, and what is stored as small, as it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import save_file

import kdmodels.models.codecs
from kdmodels.models.codecs import ENCODERS, decode, encode

MATRICES = ("conv.weight", "linear.weight", "pos_embed", "wide.weight")
LEVELS6 = 31


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    """Let matrices of few weights be quantised too: the ones here are kept small."""
    monkeypatch.setattr(kdmodels.models.codecs, "_LEAST_WEIGHTS", 0)


def mixed_state(seed=0):
    """Every kind of tensor that a network keeps, with channels of very different size."""
    generator = torch.Generator().manual_seed(seed)
    conv = torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-6, 3, 6).view(-1, 1, 1, 1)
    wide = torch.randn(5, 9, 3, 3, generator=generator) * torch.logspace(-6, 3, 5).view(-1, 1, 1, 1)
    conv[2] = wide[2] = 0
    return {
        "conv.weight": conv,
        "linear.weight": torch.randn(5, 7, generator=generator),
        "pos_embed": torch.randn(1, 3, 2, 2, generator=generator),
        "wide.weight": wide,
        "linear.bias": torch.randn(5, generator=generator),
        "norm.running_var": torch.rand(5, generator=generator),
        "norm.num_batches_tracked": torch.tensor(123456789),
        "index": torch.arange(6).reshape(2, 3),
        "scalar": torch.tensor(0.1),
    }


# --- every storage ---------------------------------------------------------------------


@pytest.mark.parametrize("storage", list(ENCODERS))
def test_vectors_and_integers_come_back_exactly_from_every_storage(storage):
    state = mixed_state()
    decoded = decode(encode(state, storage))
    assert list(decoded) == list(state)
    for name, tensor in state.items():
        assert (decoded[name].dtype, decoded[name].shape) == (tensor.dtype, tensor.shape), name
        if storage == "float32" or tensor.ndim < 2 or not tensor.is_floating_point():
            assert torch.equal(decoded[name], tensor), name


@pytest.mark.parametrize("storage", list(ENCODERS))
def test_a_channel_of_zeros_stays_zero(storage):
    stored = encode(mixed_state(), storage)
    decoded = decode(stored)
    for name in ("conv.weight", "wide.weight"):
        assert decoded[name][2].eq(0).all() and decoded[name].isfinite().all()
        assert all(channel.any() for i, channel in enumerate(decoded[name][1:], 1) if i != 2)
    # 0 / 0 has no integer, and what it is turned into differs between processors
    assert all((stored[name] > 0).all() for name in stored if name.endswith("scale"))


@pytest.mark.parametrize("storage", list(ENCODERS))
def test_encoding_does_not_depend_on_the_memory_layout_and_keeps_its_input(storage):
    state = mixed_state()
    last = {
        k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v
        for k, v in state.items()
    }
    one, other = encode(state, storage), encode(last, storage)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(tensor.is_contiguous() for tensor in other.values())  # as safetensors wants it
    assert all(torch.equal(state[name], tensor) for name, tensor in mixed_state().items())


def test_the_smaller_the_storage_the_smaller_the_file_and_the_larger_the_error(tmp_path):
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    sizes, errors = [], []
    for storage in ("float32", "float16", "int8", "int7", "int6"):
        stored = encode({"weight": weight}, storage)
        file = tmp_path / f"{storage}.safetensors"
        save_file(stored, file)
        sizes.append(file.stat().st_size / weight.numel())
        errors.append((decode(stored)["weight"] - weight).square().mean().sqrt().item())
    for found, bytes_per_weight in zip(sizes, (4, 2, 1, 0.875, 0.75), strict=True):
        assert bytes_per_weight <= found <= bytes_per_weight + 0.025
    assert errors == sorted(errors) and errors[0] == 0


# --- float16 ---------------------------------------------------------------------------


def test_float16_is_within_half_of_its_last_digit():
    state = mixed_state()
    stored = encode(state, "float16")
    assert stored["conv.weight"].dtype == torch.float16
    for name in MATRICES:
        bound = state[name].abs() * 2**-11 + 2**-25  # the second for numbers below its normal range
        assert ((decode(stored)[name] - state[name]).abs() <= bound).all()


# --- int8 ------------------------------------------------------------------------------


def test_int8_is_within_half_of_a_step_of_each_channel():
    state = mixed_state()
    stored = encode(state, "int8")
    decoded = decode(stored)
    for name in ("wide.weight",):
        assert stored[name].dtype == torch.int8 and stored[name].abs().max() <= 127
        for channel, wanted in enumerate(state[name].double()):
            largest = wanted.abs().max()
            error = (decoded[name][channel].double() - wanted).abs().max()
            assert error <= largest / 127 / 2 * (1 + 1e-5), (name, channel)
            # the largest weight is met exactly, so the whole range of int8 is in use
            assert decoded[name][channel].abs().max() == pytest.approx(largest.item(), rel=1e-6)


def test_int8_leaves_what_is_small_at_float16(monkeypatch):
    monkeypatch.setattr(kdmodels.models.codecs, "_LEAST_WEIGHTS", 500)
    state = mixed_state() | {"large.weight": torch.randn(8, 64)}
    stored = encode(state, "int8")
    for name in MATRICES:
        assert stored[name].dtype == torch.float16, name
    assert stored["large.weight"].dtype == torch.int8
    del state["large.weight"]
    state["many rows of few columns"] = torch.randn(100, 63)
    assert encode(state, "int8")["many rows of few columns"].dtype == torch.float16


# --- int6 ------------------------------------------------------------------------------


def stored6(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return encode({"weight": weight}, "int6")


def rounded(row: np.ndarray, scale: float) -> np.ndarray:
    """A row on the grid of `scale`, in float64."""
    return np.clip(np.rint(row / scale), -LEVELS6, LEVELS6) * scale


@pytest.mark.parametrize(
    "shape", [(5, 64), (1, 65), (3, 66), (2, 67), (7, 9, 3, 3), (4, 1, 8, 8), (1, 196, 64)]
)
def test_int6_takes_three_bytes_for_four_weights_of_any_shape(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    stored = stored6(weight)
    assert set(stored) == {"weight", "weight.int6_scale", "weight.int6_shape"}
    assert stored["weight"].dtype == torch.uint8
    assert stored["weight"].shape == (3 * -(-weight.numel() // 4),)
    assert (stored["weight.int6_scale"].dtype, len(stored["weight.int6_scale"])) == (
        torch.float32,
        shape[0],
    )
    decoded = decode(stored)["weight"]
    assert (decoded.shape, decoded.dtype) == (weight.shape, torch.float32)
    assert (decoded - weight).norm() < 0.05 * weight.norm()


@pytest.mark.parametrize(
    "shape",
    [(1000, 63), (96, 1, 3, 3), (96, 1, 7, 7), (64, 3, 3, 3), (5, 7), (169, 3), (1, 3, 2, 2)],
    ids=["63 columns", "depthwise 3 x 3", "depthwise 7 x 7", "stem", "head", "bias table", "patch"],
)
def test_int6_keeps_small_and_depthwise_matrices_as_float16(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    stored = stored6(weight)
    assert list(stored) == ["weight"]
    assert torch.equal(stored["weight"], weight.half())


@given(
    arrays.arrays(
        np.int8,
        st.tuples(st.integers(1, 4), st.integers(64, 71)),
        elements=st.integers(-LEVELS6, LEVELS6),
    ),
    st.integers(-20, 20),
)
def test_integers_of_six_bits_come_back_exactly(values, exponent):
    """Packing loses nothing: weights that lie on a grid of 63 levels are their own nearest."""
    values[:, 0] = LEVELS6  # then the scale is the step
    weight = torch.from_numpy(values).float() * 2.0**exponent
    stored = stored6(weight)
    assert torch.equal(stored["weight.int6_scale"], torch.full((len(values),), 2.0**exponent))
    assert torch.equal(decode(stored)["weight"], weight)


def test_int6_packs_little_end_first_as_it_always_did():
    """Stored files must stay readable: w + 32 in six bits, the first weight in the lowest."""
    values = torch.arange(-31, 32).repeat(2)[:66].reshape(1, 66)
    stored = stored6(values.float())
    content = bytes(stored["weight"].tolist())
    triples = [int.from_bytes(content[i : i + 3], "little") for i in range(0, len(content), 3)]
    found = [(triple >> shift & 63) - 32 for triple in triples for shift in (0, 6, 12, 18)]
    assert found == [*values[0].tolist(), -32, -32]  # filled up to whole triples with zeros
    assert stored["weight.int6_shape"].tolist() == [1, 66]


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "uniform"])
def test_int6_has_the_scale_of_least_squared_error(kind):
    """Against the search written out in float64: shares 1.00, 0.98, ... 0.50 of the largest."""
    generator = np.random.default_rng(4)
    draw = {
        "normal": lambda: generator.normal(size=(6, 1152)),
        "heavy tails": lambda: generator.standard_t(4, size=(6, 1152)),
        "uniform": lambda: generator.uniform(-1, 1, size=(6, 1152)),
    }[kind]
    rows = draw().astype(np.float32).astype(np.float64)
    stored = stored6(torch.from_numpy(rows).float())
    decoded = decode(stored)["weight"].double().numpy()
    least, naive = 0.0, 0.0
    for row, found in zip(rows, decoded, strict=True):
        steps = [(1 - 0.02 * i) * np.abs(row).max() / LEVELS6 for i in range(26)]
        errors = [np.square(rounded(row, step) - row).sum() for step in steps]
        assert np.square(found - row).sum() == pytest.approx(min(errors), rel=1e-4)
        least, naive = least + min(errors), naive + errors[0]
        if kind == "uniform":
            assert errors.index(min(errors)) <= 2  # nothing to gain by clipping much
    assert least < {"normal": 0.98, "heavy tails": 0.9, "uniform": 1.0}[kind] * naive


def test_int6_is_never_worse_than_the_scale_that_clips_nothing():
    weight = mixed_state()["wide.weight"].double().flatten(1).numpy()
    decoded = decode(encode(mixed_state(), "int6"))["wide.weight"].double().flatten(1).numpy()
    for channel, (row, found) in enumerate(zip(weight, decoded, strict=True)):
        naive = rounded(row, max(np.abs(row).max(), 1e-30) / LEVELS6)
        assert np.square(found - row).sum() <= np.square(naive - row).sum() * (1 + 1e-5), channel


def test_int6_is_within_half_of_a_step_unless_it_clips():
    weight = torch.randn(8, 2304, generator=torch.Generator().manual_seed(5))
    stored = stored6(weight)
    decoded, scales = decode(stored)["weight"].double(), stored["weight.int6_scale"].double()
    clipped = 0
    for row, found, scale in zip(weight.double(), decoded, scales, strict=True):
        reach = LEVELS6 * scale
        inside = row.abs() <= reach
        assert ((found - row).abs()[inside] <= scale / 2 * (1 + 1e-5)).all()
        assert torch.allclose(found[~inside], row[~inside].sign() * reach, rtol=1e-6)
        assert reach >= 0.5 * row.abs().max() * (1 - 1e-6)
        clipped += (~inside).sum().item()
    assert 0 < clipped < 0.02 * weight.numel()


def test_int6_errs_at_most_as_much_more_than_int8_as_its_steps_are_wider():
    weight = torch.randn(16, 1152, generator=torch.Generator().manual_seed(6))
    six, eight = (
        (decode(encode({"weight": weight}, storage))["weight"] - weight).norm(dim=1)
        for storage in ("int6", "int8")
    )
    ratio = six / eight
    assert ratio.mean() < 127 / 31  # clipping gains a little
    assert ((ratio > 3.5) & (ratio < 1.02 * 127 / 31)).all()


def test_int6_keeps_the_sign_and_order_of_weights():
    weight = torch.randn(4, 512, generator=torch.Generator().manual_seed(7))
    decoded = decode(stored6(weight))["weight"]
    for row, found in zip(weight, decoded, strict=True):
        assert (found[row.argsort()].diff() >= 0).all()
        assert (found * row >= 0).all()


# --- int7 ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 64), (1, 65), (3, 67), (7, 9, 3, 3)])
def test_int7_takes_seven_bytes_for_eight_weights_and_halves_the_steps_of_int6(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    stored = encode({"weight": weight}, "int7")
    assert set(stored) == {"weight", "weight.int7_scale", "weight.int7_shape"}
    assert stored["weight"].dtype == torch.uint8
    assert stored["weight"].shape == (7 * -(-weight.numel() // 8),)
    decoded = decode(stored)["weight"]
    assert decoded.shape == weight.shape
    six = (decode(stored6(weight))["weight"] - weight).norm()
    assert 0.4 * six < (decoded - weight).norm() < 0.6 * six


@given(st.integers(64, 73), st.integers(-20, 20), st.randoms(use_true_random=False))
def test_integers_of_seven_bits_come_back_exactly_little_end_first(columns, exponent, random):
    values = [63, *(random.randint(-63, 63) for _ in range(columns - 1))]
    stored = encode({"weight": torch.tensor([values]) * 2.0**exponent}, "int7")
    assert torch.equal(decode(stored)["weight"], torch.tensor([values]) * 2.0**exponent)
    number = int.from_bytes(bytes(stored["weight"].tolist()), "little")
    assert [(number >> 7 * i & 127) - 64 for i in range(columns)] == values
