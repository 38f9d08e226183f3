"""The tasks by which LSTMs were introduced: their generators, and when a network has solved them.

Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997: the embedded Reber grammar
(experiment 1), adding (4), temporal order (6a). Gers, Schmidhuber & Cummins, "Learning to Forget: Continual Prediction
with LSTM", Neural Computation 12(10), 2000: the continual embedded Reber grammar.

A task is a class. `batch()` gives x, what is wanted, and what else `Model.forward` is to be told; `judge(error, state)`
sees how far the network was off, as it learnt, and says which steps count; `solved(model)` is asked after each update.
`seen` is how many sequences the network has been shown.
"""

import numpy as np

SYMBOLS = "BTSXPVE"
# Node by node of Reber's graph, the symbols that may follow, each with the node that it leads to.
REBER = ("B1", "T2 P3", "S2 X4", "T3 V5", "X3 S6", "P4 V6", "E7")


def embedded_reber():
    """The graph B, T or P, a string of Reber's, the same T or P, E, and again from its beginning, node 0.

    Returns of each node the symbols (19, 2) and nodes (19, 2) that may follow, twice the same where there is one, and
    the legal symbols (19, 7), 0 or 1.
    """
    edges = [["B", 1], ["T", 2, "P", 10]]
    for outer in "TP":
        first, leave = len(edges), [outer, 18]
        for node in REBER:
            edges.append([part for edge in node.split() for part in (edge[0], first + int(edge[1]))])
        edges.append(leave)
    edges.append(["E", 0])
    symbols = np.array([[SYMBOLS.index(symbol) for symbol in (edge[0], edge[-2])] for edge in edges])
    return symbols, np.array([[edge[1], edge[-1]] for edge in edges]), np.eye(7)[symbols].max(axis=1)


SYMBOL, NEXT, LEGAL = embedded_reber()


def walk(coins, node):
    """Through the graph: coins (B, T) of 0 and 1, node (B,) to begin at -> symbols and the nodes after them, (B, T)."""
    symbols, nodes = np.empty_like(coins), np.empty_like(coins)
    for t in range(coins.shape[1]):
        symbols[:, t], node = SYMBOL[node, coins[:, t]], NEXT[node, coins[:, t]]
        nodes[:, t] = node
    return symbols, nodes


def reber_strings(rng, count):
    """Strings of the embedded grammar: a list of symbols (T,), and of the nodes after each, (T,)."""
    symbols, nodes = walk(rng.integers(0, 2, (1, 30 * count + 300)), np.zeros(1, int))  # 12 symbols each, in the mean
    ends = np.flatnonzero(nodes[0] == 0)[:count] + 1
    assert len(ends) == count
    return np.split(symbols[0], ends)[:count], np.split(nodes[0], ends)[:count]


def adding(rng, B, T=100):
    """x (B, 1.1 T, 2), targets (B, 1), lengths (B,) of T to 1.1 T.

    Pairs of a number in [-1, 1] and a mark: 1 for two of them, -1 at both ends, else 0. One of the first ten is marked,
    then one of the first T/2 - 1 of the others. The target is .5 + (X1 + X2) / 4; where the first pair is drawn, its
    number is 0 and its mark stays -1.
    """
    lengths, row = rng.integers(T, T + T // 10 + 1, B), np.arange(B)
    x = np.zeros((B, T + T // 10, 2), "float32")
    x[..., 0] = rng.uniform(-1, 1, x.shape[:2])
    first, second = rng.integers(0, 10, B), rng.integers(0, T // 2 - 1, B)
    second += second >= first  # of those that are not marked yet
    for drawn in (first, second):
        x[row, drawn, 1] = 1
        x[drawn == 0, 0, 0] = 0
    x[:, 0, 1] = x[row, lengths - 1, 1] = -1
    return x, 0.5 + (x[row, first, :1] + x[row, second, :1]) / 4, lengths


def temporal_order(rng, B, T=100):
    """ids (B, 1.1 T) of "EBabcdXY", classes as one-hot rows (B, 4), lengths (B,) of T to 1.1 T.

    E, random letters of abcd, B; X or Y at t1 in T/10..T/5 and at t2 in T/2..6T/10. The class is which of the four.
    """
    lengths, row = rng.integers(T, T + T // 10 + 1, B), np.arange(B)
    ids, which = rng.integers(2, 6, (B, T + T // 10)), rng.integers(0, 2, (B, 2))
    ids[:, 0], ids[row, lengths - 1] = 0, 1
    ids[row, rng.integers(T // 10, T // 5 + 1, B)] = 6 + which[:, 0]
    ids[row, rng.integers(T // 2, 6 * T // 10 + 1, B)] = 6 + which[:, 1]
    return ids, np.eye(4)[2 * which[:, 0] + which[:, 1]], lengths


class LastSequences:
    """Solved when the last 2000 sequences were right as they came, before the network learnt by them: every output less
    than `limit` off, and the mean of how far they all were off less than `mean`."""

    T, last = 100, 2000

    def __init__(self, rng, B):
        self.rng, self.B, self.seen, self.right = rng, B, 0, 0
        self.off = np.zeros(self.last)

    def batch(self):
        x, target, lengths = type(self).generator(self.rng, self.B, self.T)
        return x, target, {"lengths": lengths}

    def judge(self, error, state):
        off = np.abs(error)
        wrong = np.flatnonzero(off.max(axis=1) >= self.limit)
        self.right = self.right + self.B if not len(wrong) else self.B - 1 - wrong[-1]
        self.off[(self.seen + np.arange(self.B)) % self.last] = off.mean(axis=1)
        self.seen += self.B
        return np.ones(self.B, bool)

    def solved(self, model):
        return self.right >= self.last and self.off.mean() < self.mean

    def wrong(self, model, count=2560):
        """How many new sequences a network gets wrong."""
        x, target, lengths = type(self).generator(self.rng, count, self.T)
        outputs = LINKS[self.loss](model(x, lengths=lengths)[0])
        return int((np.abs(outputs - target).max(axis=1) >= self.limit).sum())


class Adding(LastSequences):
    sizes, output, loss = (2, 1), "last", "mse"
    generator, limit, mean = adding, 0.04, 0.01


class TemporalOrder(LastSequences):
    sizes, output, loss = (8, 4), "last", "cross_entropy"
    generator, limit, mean = temporal_order, 0.3, 0.1


class Reber:
    """256 strings to learn by, drawn at random, and 256 to test by. Solved when in all of them the symbols that may
    follow are the most active outputs, at every step; that is looked at after every 256 strings."""

    sizes, output, loss = (7, 7), "sequence", "cross_entropy"

    def __init__(self, rng, B, count=256):
        self.rng, self.B, self.count, self.seen = rng, B, count, 0
        symbols, nodes = reber_strings(rng, 2 * count)
        self.lengths = np.array([len(row) - 1 for row in symbols])  # nothing follows the last E
        self.real = np.arange(self.lengths.max()) < self.lengths[:, None]
        self.ids, self.next = np.zeros(self.real.shape, int), np.zeros(self.real.shape, int)
        self.legal = np.ones((*self.real.shape, 7), bool)
        self.ids[self.real] = np.concatenate([row[:-1] for row in symbols])
        self.next[self.real] = np.concatenate([row[1:] for row in symbols])
        self.legal[self.real] = LEGAL[np.concatenate([row[:-1] for row in nodes])]

    def batch(self):
        self.drawn = self.rng.integers(0, self.count, self.B)
        longest = self.lengths[self.drawn].max()
        ids, following = self.ids[self.drawn, :longest], self.next[self.drawn, :longest]
        return ids, np.eye(7)[following], {"lengths": self.lengths[self.drawn]}

    def judge(self, error, state):
        self.seen += self.B
        return self.real[self.drawn, : error.shape[1]]

    def solved(self, model):
        if self.seen % self.count >= self.B:
            return False
        outputs = model(self.ids, lengths=self.lengths)[0]
        least = np.where(self.legal, outputs, np.inf).min(axis=-1)
        most = np.where(self.legal, -np.inf, outputs).max(axis=-1)
        return (least > most)[self.real].all()


class ContinualReber:
    """Streams of strings without an end, their state carried on: one ends at its first error, an output .49 off, or
    after 100,000 symbols, and another begins. Wanted are all symbols that may follow. Solved when the network, as it is
    where a stream has ended, goes through ten others of 100,000 symbols without an error."""

    sizes, output, loss = (7, 7), "sequence", "binary_cross_entropy"
    limit, longest, k = 0.49, 100_000, 50

    def __init__(self, rng, B):
        self.rng, self.B, self.seen = rng, B, B
        self.node, self.age, self.state, self.ended = np.zeros(B, int), np.zeros(B, int), None, False

    def batch(self):
        ids, self.nodes = walk(self.rng.integers(0, 2, (self.B, self.k)), self.node)
        return ids, LEGAL[self.nodes], {"state": self.state}

    def judge(self, error, state):
        wrong = np.abs(error).max(axis=-1) >= self.limit
        self.age += self.k
        over = wrong.any(axis=1) | (self.age >= self.longest)
        self.node, self.age = np.where(over, 0, self.nodes[:, -1]), np.where(over, 0, self.age)
        state.h[:, over] = state.c[:, over] = 0
        self.state, self.ended = state, over.any()
        self.seen += int(over.sum())
        return wrong.cumsum(axis=1) - wrong == 0  # up to the first error

    def solved(self, model):
        return self.ended and self.errorless(model)

    def errorless(self, model, streams=10):
        """Whether it makes no error in streams of the full length; most are found out by a few symbols."""
        node, state, done = np.zeros(streams, int), None, 0
        while done < self.longest:
            size = min(done or 20, self.longest - done)
            ids, nodes = walk(self.rng.integers(0, 2, (streams, size)), node)
            outputs, state = model(ids, state)
            if ((outputs > 0) != LEGAL[nodes]).any() or np.abs(sigmoid(outputs) - LEGAL[nodes]).max() >= self.limit:
                return False
            node, done = nodes[:, -1], done + size
        return True


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


LINKS = {"mse": lambda z: z, "cross_entropy": softmax, "binary_cross_entropy": sigmoid}
TASKS = {
    "reber": Reber,
    "adding": Adding,
    "order": TemporalOrder,
    "continual": ContinualReber,
    "without": ContinualReber,
}
