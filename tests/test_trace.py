"""`LSTM.trace`: what it shows is what the kernels compute, of every variant of the cell."""

import copy
import pickle

import numpy as np
import pytest
from against_oracle import random_state, with_some_weights

from cylstm import LSTM, Model
from cylstm.between import merged

STACKS = {
    "plain": dict(num_layers=1),
    "deep": dict(num_layers=3, bidirectional=True),
    "widths": dict(hidden_size=(9, 5)),
    "reverse": dict(num_layers=2, reverse=True),
    "peepholes": dict(num_layers=2, bidirectional=True, peepholes=True),
    "coupled": dict(coupled=True, cell_clip=0.3),
    "activations": dict(activations=("hard_sigmoid", "softsign", "linear"), gate_clip=0.9),
    "projection": dict(num_layers=2, bidirectional=True, proj_size=4, proj_clip=0.2),
    "norm": dict(num_layers=2, layer_norm="ba"),
    "torchscript": dict(num_layers=2, layer_norm=("torchscript", 1e-3), bidirectional=True),
    "first": dict(num_layers=2, bidirectional=True, first_state=True),
    "merge": dict(num_layers=2, bidirectional=True, merge="product"),
    "residual": dict(num_layers=3, residual=True),
    "highway": dict(num_layers=3, bidirectional=True, highway=True),
    "zoneout": dict(num_layers=2, bidirectional=True, zoneout=(0.3, 0.2)),
    "no_bias": dict(num_layers=2, bias=False, forget_bias=0.0),
}


def layer_of(stack, dtype, rng):
    options = {"hidden_size": 9, **STACKS[stack]}
    return with_some_weights(LSTM(6, dtype=dtype, seed=rng, **options), rng)


def bound(dtype):
    return {"float32": 2e-5, "float64": 1e-12}[dtype]


def near(got, expected, dtype, what):
    assert got.shape == expected.shape, what
    assert np.abs(got - expected).max(initial=0) <= bound(dtype) * max(1, np.abs(expected).max(initial=0)), what


def names_of(layer):
    suffixes = [f"l{n}{end}" for n in range(layer.num_layers) for end in ("", "_reverse")[: layer.num_directions]]
    return [f"{part}_{suffix}" for suffix in suffixes for part in "ifgoch"]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_states_are_those_of_the_kernels(isa, dtype, rng, stack, cut):
    layer, B, T = layer_of(stack, dtype, rng), 4, 11
    x = rng.standard_normal((B, T, 6)).astype(dtype)
    options = dict(lengths=[11, 3, 1, 7], resets=rng.random((B, T)) < 0.2) if cut else {}
    state = random_state(layer, B, rng) if cut else None
    trace = layer.trace(x, state, **options)
    assert list(trace) == names_of(layer) and {values.dtype for values in trace.values()} == {layer.dtype}
    y, final = layer(x, state, **options)
    assert np.array_equal(trace.y, y) and all(map(np.array_equal, trace.state, final))
    ends = np.array(options.get("lengths", [T] * B)) - 1
    for n, name in enumerate(name for name in trace if name.startswith("h_")):
        back = name.endswith("_reverse") or layer.cell.reverse
        for part, kept in zip("hc", final, strict=True):
            values = trace[part + name[1:]]
            last = values[:, 0] if back else values[range(B), ends]
            near(last, kept[n][:, : values.shape[2]], dtype, f"{part}{name[1:]} of the last step")
    if "zoneout" not in stack:  # whose tape has what was drawn, not the means
        _, _, tape = layer.forward(x, state, **options)
        for n, name in enumerate(name for name in trace if name.startswith("h_")):
            for part, kept in (("h", tape.h), ("c", tape.c)):
                values = trace[part + name[1:]]
                near(values, kept[n][..., : values.shape[2]], dtype, f"{part}{name[1:]} of each step")
    if not (layer.cell.residual or layer.cell.highway):
        D = layer.num_directions
        h = [trace[name] for name in trace if name.startswith("h_")][-D:]
        flat = merged(layer, [part.reshape(B * T, -1) for part in h])
        near(flat.reshape(B, T, -1), y, dtype, "outputs")


@pytest.mark.parametrize("stack", ["plain", "deep", "coupled", "peepholes", "zoneout"])
def test_gates_are_what_makes_the_state(dtype, rng, stack):
    layer, B, T = layer_of(stack, dtype, rng), 3, 8
    trace = layer.trace(rng.standard_normal((B, T, 6)).astype(dtype))
    old_c, old_h = layer.zoneout
    for name in (name for name in trace if name.startswith("i_")):
        i, f, g, o, c, h = (trace[part + name[1:]] for part in "ifgoch")
        if name.endswith("_reverse"):
            i, f, g, o, c, h = (values[:, ::-1] for values in (i, f, g, o, c, h))
        before_c, before_h = (np.concatenate([0 * values[:, :1], values[:, :-1]], axis=1) for values in (c, h))
        made = f * before_c + i * g
        if stack == "coupled":
            made = np.clip(made, -0.3, 0.3)
            near(f, 1 - i, dtype, f"f of {name}")
        near(c, (1 - old_c) * made + old_c * before_c, dtype, f"c of {name}")
        near(h, (1 - old_h) * o * np.tanh(made) + old_h * before_h, dtype, f"h of {name}")
        assert i.min() > 0 and f.min() > 0 and o.min() > 0 and i.max() < 1 and o.max() < 1
        assert np.abs(i - o).max() > 0.01 and np.abs(i - f).max() > 0.01


def test_ids_are_one_hot_rows(dtype, rng):
    layer = with_some_weights(LSTM(50, 7, 2, bidirectional=True, dtype=dtype, seed=1), rng)
    ids = rng.integers(0, 50, (3, 9))
    trace, same = layer.trace(ids), layer.trace(np.eye(50, dtype=dtype)[ids])
    for name in trace:
        near(trace[name], same[name], dtype, name)
    wild = ids.copy()
    wild[1, 4:] = 10**6  # past its end
    cut = layer.trace(wild, lengths=[9, 4, 9])
    assert all(np.array_equal(cut[name][0], trace[name][0]) for name in trace)
    assert not any(values[1, 4:].any() for values in cut.values())


def test_one_sequence_has_no_axis_of_rows(rng):
    layer = LSTM(3, 5, seed=1)
    x = rng.standard_normal((6, 3)).astype("float32")
    trace, rows = layer.trace(x), layer.trace(x[None])
    assert trace["f_l0"].shape == (6, 5) and trace.y.shape == (6, 5)
    assert all(np.array_equal(trace[name], rows[name][0]) for name in trace)


def test_what_is_too_large_for_the_type_is_no_number_and_nothing_is_said():
    layer = LSTM(3, 5, activations=("sigmoid", "linear", "linear"), seed=1)
    layer.parameters["bias_l0"][...] = 3e38
    trace = layer.trace(np.ones((2, 6, 3), "float32"))
    assert not np.isfinite(trace["c_l0"][:, -1]).all() and not np.isfinite(trace.state.c).all()


def test_training_drops_do_not_show(rng):
    layer = LSTM(3, 5, 2, seed=1, dropout=0.5, recurrent_dropout=0.5, weight_drop=0.5)
    x, before = rng.standard_normal((2, 6, 3)), layer.rng.bit_generator.state
    trace = layer.trace(x)
    layer.dropout = layer.recurrent_dropout = layer.weight_drop = 0.0
    assert all(np.array_equal(values, layer.trace(x)[name]) for name, values in trace.items())
    assert layer.rng.bit_generator.state == before


def test_it_can_be_copied_and_pickled():
    trace = LSTM(3, 5, seed=1).trace(np.ones((2, 3)))
    for again in (copy.deepcopy(trace), pickle.loads(pickle.dumps(trace))):
        assert all(np.array_equal(again[name], trace[name]) for name in trace)
        assert np.array_equal(again.y, trace.y) and np.array_equal(again.state.c, trace.state.c)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_fewer_bits_are_refused(precision):
    layer = LSTM(3, 5, seed=1)
    small, x = layer.astype(precision), np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match=f"^trace: expected a layer that .*, got one in {precision}; astype"):
        small.trace(x)
    assert small.astype("float32").trace(x)["c_l0"].shape == (2, 5)
    layer.precision = "bfloat16"
    with pytest.raises(ValueError, match=r"^trace: expected a layer that .*, got one in bfloat16"):
        layer.trace(x)


def test_bad_arguments_are_those_of_a_call():
    layer, x = LSTM(3, 5, seed=1), np.ones((2, 4, 3))
    for bad in (np.ones((2, 4, 2)), "text", np.ones(3, complex)):
        with pytest.raises((TypeError, ValueError), match=r"^x: expected"):
            layer.trace(bad)
    with pytest.raises(ValueError, match=r"^lengths\[0\]: expected a length in 0..4, got 5"):
        layer.trace(x, lengths=[5, 1])
    with pytest.raises(TypeError, match=r"^resets: expected booleans"):
        layer.trace(x, resets=np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"^state.h: expected \(1, 2, 5\)"):
        layer.trace(x, layer.initial_state(3))
    model = Model(9, 5, 9, embedding_size=3, seed=1)
    ids = np.array([1, 2, 3])
    with pytest.raises(TypeError, match=r"^x: expected what the model makes of its inputs"):
        model.lstm.trace(ids)
    assert model.lstm.trace(model.embed(ids))["f_l0"].shape == (3, 5)
