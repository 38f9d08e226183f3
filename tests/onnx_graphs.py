"""ONNX files made field by field, and the LSTM operator's equations as its page has them, in NumPy."""

import numpy as np

from cylstm.exchange.onnx_file import DOUBLE, FLOAT, INT64
from cylstm.exchange.onnx_write import attribute, info
from cylstm.exchange.protobuf import encoded

I, H, B, T = 3, 4, 2, 5
TYPES = {"f4": FLOAT, "f8": DOUBLE, "i8": INT64, "i4": 6, "f2": 10}


def tensor(name, array, **fields):
    """A TensorProto; fields in place of raw_data: external=[(key, value), ...]."""
    array = np.asarray(array)
    if array.dtype == int:
        array = array.astype("i8")
    start = [(1, list(array.shape)), (2, TYPES[array.dtype.str[1:]]), (8, name)]
    if "external" in fields:
        pairs = [encoded((1, key), (2, str(value))) for key, value in fields["external"]]
        return encoded(*start, (13, pairs), (14, 1))
    return encoded(*start, (9, array.tobytes()))


def attribute_of(name, value):
    """An AttributeProto of any of the kinds that nodes have."""
    if isinstance(value, np.ndarray):
        return encoded((1, name), (5, tensor("", value)), (20, 4))
    return attribute(name, value)


def node(op, inputs, outputs, domain="", **attributes):
    """A NodeProto; inputs and outputs are names with a space between them, "-" for one left out."""
    names = [["" if name == "-" else name for name in text.split()] for text in (inputs, outputs)]
    told = [attribute_of(name, value) for name, value in attributes.items()]
    return encoded((1, names[0]), (2, names[1]), (3, f"{op.lower()} of {outputs.split()[0]}"), (4, op), (5, told),
                   (7, domain or None))  # fmt: skip


def model(nodes, tensors, inputs=(("x", FLOAT, ("batch", "time", I)),), outputs=("y",), opset=14):
    """A ModelProto: nodes as `node` makes them, tensors by name, inputs (name, type, shape)."""
    made = [one if isinstance(one, bytes) else tensor(name, one) for name, one in tensors.items()]
    given = [info(*one) for one in inputs]
    graph = encoded((1, nodes), (2, "test"), (5, made), (11, given), (12, [info(name, FLOAT, ()) for name in outputs]))
    return encoded((1, 7), (7, graph), (8, encoded((1, ""), (2, opset))))


def weights(D=1, I=I, seed=5, names="WRB", dtype="f4"):
    """W, R, B and P of an LSTM node."""
    rng = np.random.default_rng(seed)
    shapes = {"W": (D, 4 * H, I), "R": (D, 4 * H, H), "B": (D, 8 * H), "P": (D, 3 * H)}
    return {name: rng.uniform(-0.8, 0.8, shapes[name]).astype(dtype) for name in names}


def dense(O, F, seed=7):
    """weight (F, O) and bias (O,) of a MatMul and an Add."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (F, O)).astype("f4"), rng.uniform(-1, 1, O).astype("f4")


def numbers(*shape, seed=9):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(X, W, R, B=None, P=None, h=None, c=None, coupled=False, functions=(sigmoid, np.tanh, np.tanh), clip=np.inf):
    """X (T, B, I) -> Y (T, D, B, H), Y_h, Y_c (D, B, H): the operator, in float64; the second direction is backward."""
    f1, f2, f3 = functions

    def gate(z):
        return f1(np.clip(z, -clip, clip))

    D, _, H = R.shape
    rows = X.shape[1]
    Y, finals = np.zeros((len(X), D, rows, H)), []
    for d in range(D):
        bias = np.zeros(8 * H) if B is None else B[d].astype(float)
        p_i, p_o, p_f = np.zeros((3, H)) if P is None else P[d].astype(float).reshape(3, H)
        h_t = np.zeros((rows, H)) if h is None else h[d].astype(float)
        c_t = np.zeros((rows, H)) if c is None else c[d].astype(float)
        for t in range(len(X)) if d == 0 else range(len(X) - 1, -1, -1):
            sums = X[t] @ W[d].T.astype(float) + h_t @ R[d].T.astype(float) + bias[: 4 * H] + bias[4 * H :]
            i, o, f, g = np.split(sums, 4, axis=1)
            i = gate(i + p_i * c_t)
            f = 1 - i if coupled else gate(f + p_f * c_t)
            c_t = f * c_t + i * f2(np.clip(g, -clip, clip))
            h_t = gate(o + p_o * c_t) * f3(c_t)
            Y[t, d] = h_t
        finals.append((h_t, c_t))
    return Y, np.stack([one[0] for one in finals]), np.stack([one[1] for one in finals])


def side_by_side(Y):
    """(T, D, B, H) -> (B, T, D*H)."""
    return Y.transpose(2, 0, 1, 3).reshape(Y.shape[2], len(Y), -1)
