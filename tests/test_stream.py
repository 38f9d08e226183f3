"""Batches that come one by one: the bits of arrays, each checked when it comes, in the memory of one."""

import itertools
import sys

import numpy as np
import pytest
from tasks import V, make, sequences

from cylstm import SGD, Adam, Checkpoint, Cosine, Model, ReduceOnPlateau, StepDecay, StopTraining, data
from cylstm.training import progress
from cylstm.training.dataset import Dataset

KINDS = {
    "features": dict(input_size=3, output_size=2, loss="mse"),
    "ids": dict(input_size=V, output_size=V, embedding_size=4),
    "lists": dict(input_size=V, output_size=V),
    "last": dict(input_size=3, output_size=2, loss="huber", output="last"),
    "counts": dict(input_size=3, output_size=V),
    "ctc": dict(input_size=3, output_size=V, loss="ctc"),
}


def model_of(kind, **options):
    options = {"num_layers": 2, "dropout": 0.3, "seed": 1, "dtype": "float64", **options}
    sizes = dict(KINDS[kind])
    return Model(sizes.pop("input_size"), 6, sizes.pop("output_size"), **sizes, **options)


def whole(kind, rng, B=23, T=9):
    """Arguments of fit, for all rows at once."""
    lengths = rng.integers(1, T + 1, B)
    if kind == "lists":
        return dict(zip("xy", sequences(rng, lengths), strict=True))
    x = rng.standard_normal((B, T, 3)) if KINDS[kind]["input_size"] == 3 else rng.integers(0, V, (B, T))
    if kind == "features":
        return dict(x=x, y=rng.standard_normal((B, T, 2)), resets=rng.random((B, T)) < 0.2)
    if kind == "ids":
        return dict(x=x, y=rng.integers(0, V, (B, T)), lengths=lengths, sample_weight=rng.random((B, T)))
    if kind == "last":
        state = tuple(rng.standard_normal((2, 2, B, 6)))
        return dict(x=x, y=rng.standard_normal((B, 2)), state=state, sample_weight=rng.random(B))
    if kind == "ctc":
        return dict(x=x, y=[rng.integers(1, V, n % 4) for n in range(B)])
    return dict(x=x, y=rng.integers(0, V, (B, T)), mask=rng.random((B, T)) < 0.7)


def cut(kind, given, batch_size, **counts):
    """The batches that fit makes of arrays without shuffling, as dicts."""

    def part(name, values, rows):
        if name == "state":
            return tuple(array[:, rows] for array in values)
        return values[rows] if isinstance(values, np.ndarray) else [values[n] for n in rows]

    batches = Dataset(model_of(kind), **given, **counts).batches(batch_size)
    return [{name: part(name, values, rows) for name, values in given.items()} for rows in batches]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_same_bits_as_from_arrays(rng, kind, accumulate):
    given = whole(kind, rng)
    counts = dict(ignore=3, class_weight={0: 2.0, 5: 0.25}) if kind == "counts" else {}
    common = dict(epochs=3, accumulate=accumulate, optimizer=Adam(0.01), progress=False, **counts)
    expected = model_of(kind)
    history = expected.fit(**given, batch_size=5, shuffle=False, **common)
    batches = cut(kind, given, 5, **counts)
    assert len(batches) == 5

    def generator():
        yield from batches

    for source in (batches, generator):
        model = model_of(kind)
        common["optimizer"] = Adam(0.01)
        found = model.fit(source, **common)
        np.testing.assert_array_equal(model.parameters.flat, expected.parameters.flat)
        assert found.train_loss == history.train_loss and found.updates == history.updates
    model = model_of(kind)
    for epoch in range(3):  # an iterator for each
        found = model.fit(iter(batches), **{**common, "epochs": 1})
        assert found.train_loss == history.train_loss[epoch : epoch + 1]
    np.testing.assert_array_equal(model.parameters.flat, expected.parameters.flat)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_over_everything_that_counts(rng, kind, monkeypatch):
    """The mean over all of it, not over batches: whose loss has unequal weight."""
    given = whole(kind, rng)
    counts = dict(ignore=3, class_weight={0: 2.0, 5: 0.25}) if kind == "counts" else {}
    model = model_of(kind)
    expected = model.evaluate(**given, **counts)
    batches = cut(kind, given, 7, **counts)
    assert model.evaluate(batches, **counts) == pytest.approx(expected, rel=1e-12)
    assert model.evaluate(iter(batches), batch_size=2, **counts) == pytest.approx(expected, rel=1e-12)
    history = model_of(kind, dropout=0.0).fit(
        batches, validation=iter(batches), epochs=1, optimizer=SGD(1e-300), progress=False, **counts
    )
    assert history.train_loss[0] == pytest.approx(expected["loss"], rel=1e-12)
    if kind != "counts":
        assert history.validation_loss[0] == pytest.approx(expected["loss"], rel=1e-12)
    monkeypatch.setattr("cylstm.batches.AT_ONCE", 10)
    assert model.evaluate(batches, **counts) == pytest.approx(expected, rel=1e-12)


def test_what_is_missing_or_counts_for_nothing(rng):
    """NaN number by number, as NumPy has it; a batch in which nothing counts updates nothing."""
    x, y = rng.standard_normal((12, 5, 3)), rng.standard_normal((12, 5, 2))
    y[rng.random(y.shape) < 0.3] = np.nan
    y[4:8] = np.nan
    batches = [(x[n : n + 4], y[n : n + 4]) for n in (0, 4, 8)]
    model = model_of("features", dropout=0.0)
    error = (model(x)[0] - y) ** 2
    found = model.evaluate(batches, missing="skip")
    assert found["loss"] == pytest.approx(np.nansum(error) / 2 / ((~np.isnan(y)).sum() / 2))
    assert model.fit(batches, missing="skip", epochs=2, progress=False).updates == [2, 4]
    for nothing in ([batches[1]], [(x[:2], y[:2], [0, 0])]):
        with pytest.raises(ValueError, match="batches: expected at least one target that counts, got none"):
            model.evaluate(nothing, missing="skip")
        before = model.parameters.flat.copy()
        with pytest.raises(ValueError, match="batches: expected at least one target that counts in each epoch, got no"):
            model.fit(nothing, missing="skip", progress=False)
        np.testing.assert_array_equal(model.parameters.flat, before)
    with pytest.raises(ValueError, match="validation: expected at least one target that counts, got none"):
        model.fit(batches, validation=[batches[1]], missing="skip", progress=False)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_bad_batch_is_named_and_has_no_update(rng):
    batches = [(rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6, 2))) for _ in range(5)]
    batches[3][0][2, 5, 0] = np.nan
    whole, broken = model_of("features"), model_of("features")
    whole.fit(batches[:3], epochs=1, progress=False)
    message = r"^batches\[3\]: x\[2, 5, 0\]: expected a finite number, got nan \(mask= skips steps\)$"
    with pytest.raises(ValueError, match=message):
        broken.fit(batches, epochs=1, progress=False)
    np.testing.assert_array_equal(broken.parameters.flat, whole.parameters.flat)
    with pytest.raises(ValueError, match=message):
        model_of("features").fit(batches, epochs=1, accumulate=4, progress=False)
    with pytest.raises(ValueError, match=message):
        broken.evaluate(iter(batches))
    with pytest.raises(ValueError, match=message.replace("batches", "validation")):
        broken.fit(batches[:2], validation=batches, progress=False)
    batches[3] = batches[3] + ([6, 7, 1, 1],)
    with pytest.raises(ValueError, match=r"^batches\[3\]: lengths\[1\]: expected a length in 0..6, got 7$"):
        broken.fit(batches, progress=False)
    for wrong in (batches[0][0], "xy", {"x": 3}, {"x": 1, "y": 2, "z": 3}, (1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"^batches\[1\]: expected \(x, y\), \(x, y, lengths\) or a dict of x, y"):
            broken.fit([batches[0], wrong], progress=False)

    def fails():
        yield batches[0]
        raise OSError("the file has an end")

    with pytest.raises(OSError, match=r"^the file has an end$"):
        broken.fit(fails, progress=False)


X = np.arange(40).reshape(8, 5) % V
PAIRS = [(X[:4], X[:4]), (X[4:], X[4:])]


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (dict(lengths=[5] * 8), ValueError, "lengths: expected None beside batches, each of which has its own, got list"),
    (dict(sample_weight=np.ones(8)), ValueError, "sample_weight: expected None beside batches"),
    (dict(class_weight="balanced"), ValueError, "class_weight: expected a dict or None with batches, which nobody has"),
    (dict(class_weight={9: 1}), ValueError, r"class_weight: expected classes in 0..6, got int 9"),
    (dict(missing="skip"), TypeError, "missing: expected 'error'"),
    (dict(tbptt=3), ValueError, "tbptt: expected None with batches"),
    (dict(batch_size=32), ValueError, "batch_size: expected None with batches, which come as they are, got int 32"),
    (dict(shuffle=True), ValueError, r"shuffle: expected None or False with batches, .*data.Shuffled"),
    (dict(x=lambda: PAIRS, optimizer=Adam(Cosine(0.1, epochs=3))), ValueError, r"optimizer: expected a rate that"),
    (dict(x=iter(PAIRS)), ValueError, r"batches: expected what can be gone through 10 times, .*got a list_iterator"),
    (dict(x=data.Batched(zip(X, X, strict=True), 4)), ValueError, "batches: expected what can be gone .* got a zip"),
    (dict(validation=iter(PAIRS)), ValueError, "validation: expected what can be gone through 10 times"),
    (dict(validation=[]), ValueError, r"validation: expected \(x, y\)"),
    (dict(x=[]), ValueError, "batches: expected at least one batch in each epoch, got none"),
    (dict(x=iter([]), epochs=1), ValueError, "batches: expected at least one batch in each epoch, got none"),
    (dict(x=3), TypeError, r"batches: expected an iterable of \(x, y\), .* or a function that returns one, got int 3"),
    (dict(x=None), TypeError, "batches: expected an iterable"),
    (dict(x="ab"), TypeError, "batches: expected an iterable"),
    (dict(x=dict(x=X, y=X)), TypeError, "batches: expected an iterable"),
    (dict(x=lambda: 3), TypeError, "batches: expected a function that returns an iterator, got one that returns int 3"),
    (dict(x=X), TypeError, r"y: expected targets beside x, or batches \(x, y\) in the place of x, got None"),
    (dict(x=[X[0], X[1]]), TypeError, "y: expected targets beside x, or batches"),
])  # fmt: skip
def test_bad_arguments_are_named_before_anything_changes(arguments, error, message):
    model = make()
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=f"^{message}"):
        model.fit(**{"x": PAIRS, "progress": False, **arguments})
    np.testing.assert_array_equal(model.parameters.flat, before)


def test_what_ends_with_the_first_epoch_is_named_in_the_second():
    opened = iter(PAIRS)
    with pytest.raises(ValueError, match="batches: expected at least one batch in each epoch, got none"):
        make().fit(lambda: opened, epochs=2, progress=False)


def test_lists_of_arrays_are_validation_data_as_ever(rng):
    x, y = sequences(rng, [6, 4, 5])
    expected = make().evaluate(x, y)["loss"]
    batches = [(x[:2], y[:2]), (x[2:], y[2:])]
    dicts = [dict(x=x[:2], y=y[:2]), dict(x=x[2:], y=y[2:])]
    for validation in ((x, y), [x, y], dict(x=x, y=y), batches, dicts, iter(batches), lambda: batches):
        history = make().fit(x, y, validation=validation, epochs=1, optimizer=SGD(1e-300), progress=False)
        assert history.validation_loss[0] == pytest.approx(expected, rel=1e-12)


# --- epochs -----------------------------------------------------------------------------------------------------------


class Told:
    """What is told its epoch, and counts how often it is gone through."""

    def __init__(self, batches):
        self.batches, self.epochs, self.given = batches, [], 0

    def __iter__(self):
        for batch in self.batches:
            self.given += 1
            yield batch

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def test_an_iterable_is_told_its_epoch_and_a_second_fit_goes_on(rng):
    told, optimizer, model, other = Told(PAIRS), Adam(), make(), make()
    model.fit(told, epochs=2, optimizer=optimizer, progress=False)
    model.fit(told, epochs=1, optimizer=optimizer, progress=False)
    assert told.epochs == [0, 1, 2] and told.given == 6
    rows = data.Batched(data.Shuffled(list(zip(X, X, strict=True)), 5, seed=3), 3)
    one, again = make(), Adam()
    for _ in range(3):
        one.fit(rows, epochs=1, optimizer=again, progress=False)
    other.fit(rows, epochs=3, optimizer=Adam(), progress=False)
    np.testing.assert_array_equal(one.parameters.flat, other.parameters.flat)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_is_broken_off_goes_on_to_the_same_bits(tmp_path, rng, accumulate):
    x, y = sequences(rng, rng.integers(1, 9, 27))
    rows = list(zip(x, y, strict=True))

    def batches():
        return data.Batched(data.Shuffled(lambda: iter(rows), 10, seed=2), 4)  # seven

    path = tmp_path / "run.ckpt"
    options = dict(epochs=3, accumulate=accumulate, validation=[(x[:5], y[:5])], patience=2, progress=False)
    for update in (1, 4, 7 // accumulate + 1):
        whole, broken, resumed = (make(num_layers=2, dropout=0.3) for _ in range(3))

        def stop(event, last=update):
            if event.update == last:
                raise StopTraining

        expected = whole.fit(batches(), **options)
        broken.fit(batches(), checkpoint=Checkpoint(path, updates=1), callbacks=[stop], **options)
        found = resumed.fit(batches(), resume=path, **options)
        np.testing.assert_array_equal(resumed.parameters.flat, whole.parameters.flat)
        assert found.train_loss == expected.train_loss and found.validation_loss == expected.validation_loss
    with pytest.raises(ValueError, match=r"resume: expected the same run as .* with batch_size=None, got 4"):
        make(num_layers=2, dropout=0.3).fit(x, y, resume=path, batch_size=4, shuffle=False, **options)
    with pytest.raises(ValueError, match=r"accumulate="):
        make(num_layers=2, dropout=0.3).fit(batches(), resume=path, **{**options, "accumulate": 5})


def test_what_was_taken_before_the_break_has_to_come_again(tmp_path, rng):
    path, told = tmp_path / "run.ckpt", Told(PAIRS * 3)

    def stop(event):
        if event.update == 10:
            raise StopTraining

    make().fit(told, epochs=3, checkpoint=Checkpoint(path, updates=1), callbacks=[stop], progress=False)
    told = Told(PAIRS * 3)
    make().fit(told, epochs=2, resume=path, progress=False)
    assert told.epochs == [1] and told.given == 6
    with pytest.raises(ValueError, match=r"batches: expected at least 4, as many as were taken before .*, got 2"):
        make().fit(PAIRS, epochs=2, resume=path, progress=False)


class Sized(Told):
    """It says how many there are, right or wrong."""

    def __init__(self, batches, size):
        super().__init__(batches)
        self.size = size

    def __len__(self):
        return self.size


def test_schedules_go_by_len_and_those_of_whole_epochs_need_none(rng):
    batches = [(rng.integers(0, V, (3, 4)),) * 2 for _ in range(5)]
    x = np.concatenate([x for x, _ in batches])
    rates = lambda: Adam(Cosine(0.02, epochs=3, warmup=0.5))  # noqa: E731
    for accumulate in (1, 2):
        expected, model = make(), make()
        options = dict(epochs=3, accumulate=accumulate, progress=False)
        history = expected.fit(x, x, batch_size=3, shuffle=False, optimizer=rates(), **options)
        found = model.fit(batches, optimizer=rates(), **options)
        np.testing.assert_array_equal(model.parameters.flat, expected.parameters.flat)
        assert found.learning_rate == history.learning_rate
    for size in (2, 9):  # an epoch has as many batches as come; its rate stays within it
        model.fit(Sized(batches, size), epochs=2, optimizer=SGD(schedule := Cosine(1.0, epochs=2)), progress=False)
    wrong = make().fit(Sized(batches, 2), epochs=2, optimizer=SGD(schedule), progress=False)
    assert wrong.learning_rate == [schedule.at(0.5, 0), schedule.at(1.5, 0)]
    for schedule in (StepDecay(0.1, every=2, factor=0.5), ReduceOnPlateau(1e-300, patience=1)):
        runs = [make().fit(*data_, batch_size=size, shuffle=False, epochs=4, optimizer=SGD(schedule), progress=False)
                for data_, size in (((x, x), 3), ((lambda: iter(batches),), None))]  # fmt: skip
        assert runs[0].learning_rate == runs[1].learning_rate and len(set(runs[0].learning_rate)) > 1


def test_the_bar_of_an_unknown_number_has_no_end(capsys, monkeypatch):
    """It counts the batches, and does not say which share of the run they are."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "EVERY", 0)
    make().fit(lambda: iter(PAIRS), epochs=1)
    assert ", 2 batches" in (text := capsys.readouterr().err) and "50%" not in text and "100%" not in text
    make().fit(PAIRS, epochs=1)
    assert "batches" not in (text := capsys.readouterr().err) and "50%" in text and "100%" in text


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_batches(traced):
    """Each is new, and 0.8 MB; its gates and states lie in the memory of the batch before."""
    model, rng = Model(8, 12, 2, loss="mse", seed=1), np.random.default_rng(0)

    def batches(count):
        for _ in range(count):
            x = rng.standard_normal((64, 400, 8), dtype="float32")
            yield x, x[:, :, :2] * 2

    def rows(count):
        for x, y in batches(count):
            yield from zip(x, y, strict=True)

    model.fit(batches(1), epochs=1, progress=False)
    few, many = (traced(lambda n=n: model.fit(batches(n), epochs=1, progress=False)) for n in (3, 30))
    assert many < few + 20_000 and few < 8e6
    lazily = traced(lambda: model.fit(batches(30), epochs=1, accumulate=10, progress=False))
    assert lazily < few + 2.5e6  # not all ten
    few, many = (traced(lambda n=n: model.evaluate(batches(n))) for n in (3, 30))
    assert many < few + 20_000
    few, many = (
        traced(lambda n=n: model.fit(data.Batched(data.Shuffled(rows(n), 64), 32), epochs=1, progress=False))
        for n in (3, 30)
    )
    assert many < few + 20_000
    assert traced(lambda: list(batches(30))) > 24e6


def test_a_memory_map_is_not_copied_as_a_whole(tmp_path, rng, traced):
    B, T = 20_000, 60
    arrays = {"x": rng.standard_normal((B, T, 4), "float32"), "ids": rng.integers(0, V, (B, T)),
              "y": rng.standard_normal((B, T, 2), "float32"), "lengths": rng.integers(1, T + 1, B)}  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    x, ids, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("x", "ids", "y"))
    options = dict(epochs=1, batch_size=50, optimizer=SGD(1e-3), progress=False)
    for lengths, pair, model in itertools.product(
        (None, arrays["lengths"]), ((x, y), (ids, ids)), (Model(4, 3, 2, loss="mse"), Model(V, 3, V))
    ):
        if (pair[0] is x) == (model.loss.name == "mse"):
            taken = traced(lambda m=model, p=pair, n=lengths: m.fit(*p, lengths=n, **options))
            assert taken < min(array.nbytes for array in pair) / 2, (model.loss.name, lengths is None)
