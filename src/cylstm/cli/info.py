"""What `cylstm info` says of the files that `forecast` and `classify` write, and LSTMForecaster.save."""

from __future__ import annotations

from cylstm.cli.classifier import Classifier
from cylstm.cli.series import listed
from cylstm.cli.times import Step
from cylstm.forecast import LSTMForecaster

__all__ = ["about", "about_classifier", "about_forecaster"]

EACH = 12  # series that have a line of their own
TOLD = ("optimizer", "batch_size", "clip_norm", "patience", "seed")  # of the options of `fit`


def about(kind, path) -> dict:
    """Lines by their names, of a "forecaster" or "classifier". Raises OSError or ValueError."""
    if kind == "forecaster":
        return about_forecaster(LSTMForecaster.load(path))
    return about_classifier(Classifier.load(path))


def about_forecaster(found) -> dict:
    panel, layout, columns = found.panel_of(), found.layout_, found.columns_
    names, options = list(panel.names), found.options
    rows = {"kind": f"a forecaster of {len(names)} series"}
    for n, name in enumerate(names[:EACH]):
        index = panel.index(n)
        end = f"row {index.last}" if index.kind == "none" else f"{index.last}, {apart(index)}"
        rows[f"  {'the series' if panel.form == 'one' and name is None else repr(name)}"] = f"up to {end}"
    if len(names) > EACH:
        rows["  ..."] = f"and {len(names) - EACH} more"
    for what, name in (("targets", "target"), ("time", "time"), ("series by", "group"), ("known ahead", "future"),
                       ("known up to now", "past")):  # fmt: skip
        if columns.get(name):
            rows[what] = listed(columns[name])
    counts = {"known up to now": layout.P, "known ahead": layout.C, "of a series": layout.S}
    rows["covariates"] = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"
    rows["horizon"] = f"{found.horizon} steps, {found.strategy}"
    rows["season"] = "none" if found.season_ == 1 else f"{found.season_} steps"
    rows["learnt"] = "logarithms (growth by shares)" if found.log_ else "the series' own numbers"
    rows["quantiles"] = ", ".join(f"{q:g}" for q in found.quantiles)
    rows["models"] = f"{found.members}, each {of_layers(options)} of {options['hidden_size']} hidden units"
    rows["parameters"] = f"{sum(model.parameters.size for model in found.models_):,} in all"
    rows["trained"] = ", ".join(f"{name}={options[name]}" for name in
                                ("epochs", "patience", "batch_size", "lr", "dropout", "lags", "seed"))  # fmt: skip
    return rows


def of_layers(options) -> str:
    count = options["num_layers"]
    return "one layer" if count == 1 else f"{count} layers"


def apart(index) -> str:
    """What two rows are apart, in words where the steps are those of tables."""
    try:
        return f"{Step.from_text(index.step) if index.kind == 'column' else index.step} apart"
    except (LookupError, TypeError, ValueError):
        return f"{index.step} apart"


def about_classifier(found) -> dict:
    model, columns = found.model, found.columns
    in_rows = columns.group is None
    each = "a row each" if in_rows else f"the rows of one {columns.group!r} each"
    rows = {"kind": f"a classifier of sequences, {each}"}
    rows[f"labels in {columns.label!r}"] = listed(model.labels)
    rows["steps" if in_rows else "features"] = f"{len(columns.features)}: {listed(columns.features)}"
    if columns.left_out:
        rows["left out"] = listed(columns.left_out)
    sides = " in either direction" if model.lstm.bidirectional else ""
    rows["model"] = f"{of_layers(model.config)} of {model.hidden_size} hidden units{sides}"
    rows["parameters"] = f"{model.parameters.size:,}, {model.parameters.nbytes:,} bytes"
    if model.trained is not None:
        history, options = model.trained.history, model.trained.options
        rows["trained"] = f"{len(history)} epoch{'s' * (len(history) != 1)} on {options.get('rows')} sequences"
        best, (watched, _) = history.best_epoch, history.watched
        beside = "validation " * bool(history.validation_loss)
        if best is not None:
            rows["best"] = f"epoch {best + 1}: {beside}{watched} {history.column(watched)[best]:.4g}"
        rows["options"] = ", ".join(f"{name}={options[name]}" for name in TOLD if name in options)
    return rows
