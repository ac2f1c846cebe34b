"""Learners by name, as [learner] of a file chooses them; their options are the fields of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

from fedcore.errors import SettingError
from fedcore.foreign import call_named
from fedcore.learner import Learner
from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.models import LinearRegression, Perceptron, PoissonRegression, SoftmaxRegression
from fedcore.learners.per_person import PersonClipped
from fedcore.settings import convert, read, refuse_unknown, require, to_json

USUAL = "softmax"
MODELS: dict[str, type[Any]] = {  # trained by LocalSGD
    "softmax": SoftmaxRegression,
    "perceptron": Perceptron,
    "linear": LinearRegression,
    "poisson": PoissonRegression,
}
REGRESSIONS = ("linear", "poisson")
KINDS = ("logistic", *MODELS)


def read_learner(table: Mapping[str, Any], *, features: int, classes: int, seed: int = 0) -> Learner[Any]:
    """Make the learner for so many features and classes.

    table   [learner]: `kind`, one of KINDS, and its options beside it; with `person_clip` and `expected` of a
            model a PersonClipped; or "module:function", beside the file or installed, which is called with
            features, classes, seed and the options in [learner.options]
    classes  of the label; 0: it is a number
    seed    of initial weights, where they are random
    raises  SettingError
    """
    kind, options = split(table)
    fits = bool(classes) or kind in REGRESSIONS or ":" in kind
    require(fits, "learner.kind", f"one of {', '.join(REGRESSIONS)} for a label that is a number", kind)
    facts = {"features": features, "classes": classes, "seed": seed}
    if ":" in kind:
        if taken := sorted(facts.keys() & options.keys()):
            raise SettingError(f"learner.options.{taken[0]}: is given by the schema and the run")
        return _own(kind, facts, options)
    if kind == "logistic":
        from fedcore.learners.sklearn_epochs import LogisticRegressionLearner

        return read(LogisticRegressionLearner, options, "learner", _known(LogisticRegressionLearner, facts))
    model = MODELS[kind]
    if "person_clip" in options:
        return _person_clipped(model, options, facts)
    trained = [name for name in _names(LocalSGD) if name != "model"]
    refuse_unknown(options, [*trained, *(name for name in _names(model) if name not in facts)], "learner")
    inner = {name: value for name, value in options.items() if name not in trained}
    outer = {name: value for name, value in options.items() if name in trained}
    made = read(model, inner, "learner", _known(model, facts))
    return read(LocalSGD, outer, "learner", {"model": made})


def _person_clipped(model: type[Any], options: Mapping[str, Any], facts: Mapping[str, Any]) -> Learner[Any]:
    """Make the learner of gradients in which no person weighs more than `person_clip`."""
    own = [name for name in _names(model) if name not in facts]
    refuse_unknown(options, ("person_clip", "expected", *own), "learner")
    inner = {name: options[name] for name in own if name in options}
    outer = {"clip": options["person_clip"]} | {name: options[name] for name in options if name == "expected"}
    made = read(model, inner, "learner", _known(model, facts))
    return read(PersonClipped, outer, "learner", {"model": made})


def split(table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the kind and the options of a table [learner]. Raises SettingError: a kind that is not known."""
    kind = convert(table.get("kind", USUAL), str, "learner.kind")
    options = {name: value for name, value in table.items() if name != "kind"}
    if ":" in kind:
        refuse_unknown(options, ("options",), "learner")
        return kind, convert(options.get("options", {}), dict[str, Any], "learner.options")
    require(kind in KINDS, "learner.kind", f"one of {', '.join(KINDS)}, module:function", kind)
    return kind, options


def learner_json(table: Mapping[str, Any], *, features: int, classes: int, seed: int = 0) -> dict[str, Any]:
    """Return all that a table [learner] says, defaults included, as JSON values. Raises SettingError."""
    kind, options = split(table)
    if ":" not in kind:
        options = to_json(read_learner(table, features=features, classes=classes, seed=seed))
    return {"kind": kind, "options": options}


def _own(kind: str, facts: Mapping[str, Any], options: Mapping[str, Any]) -> Learner[Any]:
    """Call what "module:name" is with the options, and with those facts that it takes."""
    made: Learner[Any] = call_named(kind, "learner.kind", dict(options), facts)
    missing = [name for name in ("initial", "fit", "evaluate") if not callable(getattr(made, name, None))]
    if missing:
        what = f"{type(made).__name__} has no {missing[0]}"
        raise SettingError(f"learner.kind: {kind} makes no learner: {what}")
    return made


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind)]


def _known(kind: type[Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name in _names(kind)}


def learner_of(said: Mapping[str, Any], *, features: int, classes: int, size: int) -> Learner[Any]:
    """Undo `learner_json`, but for learners of other modules, which no file may name. Raises SettingError.

    features, classes  that the learner must be of; size: values of its parameters
    """
    kind, options = said.get("kind"), said.get("options")
    if not isinstance(options, Mapping):
        raise SettingError(f"learner.options: must be a table, is {type(options).__name__}")
    require(kind in KINDS, "learner.kind", f"one of {', '.join(KINDS)}, or give the learner itself", kind)
    inside = options if kind == "logistic" else options.get("model")
    if not isinstance(inside, Mapping):
        raise SettingError("learner.model: must be a table")
    hidden = inside.get("hidden", [])
    require(inside.get("features") == features, "learner.features", f"{features}", inside.get("features"))
    require(inside.get("classes", 0) == classes, "learner.classes", f"{classes}", inside.get("classes"))
    fits = isinstance(hidden, list) and all(isinstance(one, int) and 0 < one <= size for one in hidden)
    require(fits, "learner.hidden", f"units, at most {size}", hidden)
    layers = list(pairwise((features, *hidden, classes or 1)))
    most = sum((inputs + 1) * outputs for inputs, outputs in layers)
    require(most <= 2 * size, "learner", f"of {size} parameters", most)  # two classes may share theirs
    if kind == "logistic":
        from fedcore.learners.sklearn_epochs import LogisticRegressionLearner

        return read(LogisticRegressionLearner, options, "learner")
    inner = {"model": read(MODELS[str(kind)], inside, "learner.model")}
    outer = {name: value for name, value in options.items() if name != "model"}
    return read(PersonClipped if "clip" in outer else LocalSGD, outer, "learner", inner)
