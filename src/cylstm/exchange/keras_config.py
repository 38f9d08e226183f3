"""What the configuration of a Keras model says: a Sequential one, or a Functional one that is a chain of layers."""

from __future__ import annotations

from cylstm.checks import describe
from cylstm.exchange.keras_layers import LAYERS, Options, Planned, Told, expected

__all__ = ["planned"]


def planned(config, told: Told) -> list[Planned]:
    """The layers with weights of a model's configuration, in their order; what else it says goes into them and `told`.

    Raises ValueError for what a network cannot have, by the layer's name.
    """
    kind = expected(config, "class_name", str, "a Keras model")
    inner = config.get("config")
    if kind == "Sequential":
        inner = {"layers": inner} if isinstance(inner, list) else inner  # as in Keras 2.0
        layers = expected(inner, "layers", list, "Sequential")
    elif kind in ("Functional", "Model"):
        layers = chain(inner, told)
    else:
        raise ValueError(f"expected a Sequential or a Functional model, got {kind[:60]!r}")
    plan = []
    for layer in layers:
        options = Options(layer, told)
        if options.class_name not in LAYERS:
            options.refuse(f"a layer of {', '.join(LAYERS)}", options.class_name[:60])
        LAYERS[options.class_name](options, plan)
    return plan


def chain(config, told):
    """The layers of a Functional model in the order in which each follows another. ValueError where they branch."""
    layers = {}
    for layer in expected(config, "layers", list, "Functional"):
        name = expected(layer, "name", str, "a layer")
        if name in layers:
            raise ValueError(f"{name}: expected a name of its own, got it twice")
        layers[name] = layer
    sources = {name: source_of(name, layer, layers, told) for name, layer in layers.items()}
    name, end = (only_end(config, key) for key in ("input_layers", "output_layers"))
    followers = {}
    for follower, source in sources.items():
        if source is not None and layers[follower].get("class_name") != "NotEqual":
            followers.setdefault(source, []).append(follower)
    order = []
    while name in layers and len(order) < len(layers):
        order.append(name)
        after = followers.get(name, [])
        if len(after) > 1:
            raise ValueError(f"{name}: expected one layer behind it, got {', '.join(after)}")
        if not after:
            break
        name = after[0]
    others = [name for name in layers if name not in order and layers[name].get("class_name") != "NotEqual"]
    if not order or order[-1] != end or others:
        raise ValueError(f"Functional: expected a chain of layers that ends with {end}, got one that ends with "
                         f"{order[-1] if order else name} beside {', '.join(others) or 'none'}")  # fmt: skip
    return [layers[name] for name in order]


def only_end(config, key) -> str:
    """The name of a model's only input or output layer."""
    given = expected(config, key, list, "Functional")
    given = [given] if given and isinstance(given[0], str) else given
    if len(given) != 1 or not is_history(given[0]):
        raise ValueError(f"Functional: expected one of {key}, the first tensor of a layer, got {describe(given)}")
    return given[0][0]


def is_history(value) -> bool:
    """Whether this is [a layer's name, 0, 0]: the first tensor of its first call."""
    return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and value[1:3] == [0, 0]


def source_of(name, layer, layers, told):
    """The name of the layer whose output this one takes; None of an input layer."""
    nodes = expected(layer, "inbound_nodes", list, name)
    if not nodes and layer.get("class_name") == "InputLayer":
        return None
    if len(nodes) != 1:
        raise ValueError(f"{name}: expected it to be called once, got {len(nodes)} times")
    node = nodes[0]
    if isinstance(node, dict):  # Keras 3
        given = [history_of(value) for value in expected(node, "args", list, name) if isinstance(value, (dict, list))]
        options = node.get("kwargs") or {}
    else:  # Keras 2: [[name, 0, 0, options]], or that without the outer list
        given = node if isinstance(node, list) and node and isinstance(node[0], list) else [node]
        options = given[0][3] if isinstance(given[0], list) and len(given[0]) > 3 else {}
    if len(given) != 1 or not is_history(given[0]) or given[0][0] not in layers:
        raise ValueError(f"{name}: expected one input, the first output of another layer, got {describe(given)}")
    for key, value in options.items() if isinstance(options, dict) else [("options", options)]:
        mask = history_of(value)
        if key == "mask" and is_history(mask) and layers.get(mask[0], {}).get("class_name") == "NotEqual":
            told.masked.append(f"mask of {name}")
        elif value is not None and value is not False:
            raise ValueError(f"{name}: expected a call without {str(key)[:40]}, got {describe(value)}")
    return given[0][0]


def history_of(value):
    """[layer, call, tensor] of a tensor in a configuration of Keras 3."""
    config = value.get("config") if isinstance(value, dict) else None
    return config.get("keras_history") if isinstance(config, dict) else value
