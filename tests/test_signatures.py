"""Functions that hand options on show them."""

import inspect
import pydoc

from cylstm import Model
from cylstm.training import find_lr, fit


def keywords(function):
    parameters = inspect.signature(function).parameters.values()
    assert all(each.kind is not each.VAR_KEYWORD for each in parameters)
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_the_method_fit_shows_the_options_of_the_function():
    assert keywords(Model.fit) == keywords(fit)
    assert list(inspect.signature(Model.fit).parameters)[:3] == ["self", "x", "y"]
    assert list(inspect.signature(Model(2, 3, 1, loss="mse").fit).parameters)[:2] == ["x", "y"]
    assert "epochs=10" in pydoc.render_doc(Model.fit) and "**options" not in pydoc.render_doc(Model)


def test_the_finder_of_a_rate_shows_what_it_takes_and_no_more():
    shown = keywords(find_lr)
    assert shown["tbptt"] is None and shown["updates"] == 100 and shown["clip_norm"] == 5.0
    assert not {"epochs", "progress", "callbacks", "resume"} & set(shown)
    assert {name: keywords(fit)[name] for name in set(shown) - {"lowest", "highest", "updates"}} == {
        name: default for name, default in shown.items() if name not in ("lowest", "highest", "updates")
    }
