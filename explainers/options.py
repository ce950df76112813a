"""The options of explainers and metrics: what each may be and how it is recorded, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, get_args

from explainers.errors import ExplainerError
from explainers.maps import Fusion
from explainers.scoring import DTYPES, Activation


class _Rule(NamedTuple):
    """What a value must be, in words and as a test, and what brings it to the form that is recorded."""

    words: str
    holds: Callable[[Any], bool]
    recorded: Callable[[Any], Any] = lambda value: value


def _one_of(*choices: str) -> _Rule:
    """Return the rule of an option with a few named choices."""
    return _Rule(f"be {' or '.join(map(repr, choices))}", lambda value: value in choices)


def _whole_number(least: int) -> _Rule:
    """Return the rule of a whole number; True and False are none, though Python counts them as such."""
    return _Rule(
        f"be a whole number, {least} or more",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


_RULES = {
    "activation": _one_of(*get_args(Activation)),
    "areas": _Rule(
        "be shares of the picture in (0, 1)",
        lambda values: len(values) > 0 and all(0.0 < value < 1.0 for value in values),
    ),
    "baseline": _one_of("mean", "black"),
    "contrast": _Rule("be above 0 and finite", lambda value: 0.0 < value < math.inf, float),
    "fusion": _one_of(*get_args(Fusion)),
    "masking": _one_of("hard", "soft"),
    "mu": _Rule("lie in [0, 1)", lambda value: 0.0 <= value < 1.0, float),
    "p": _Rule("lie in (0, 1)", lambda value: 0.0 < value < 1.0, float),
    "precision": _Rule(
        f"be one of {', '.join(DTYPES)}",
        lambda value: value is None or value in DTYPES,
        lambda value: value or "float32",
    ),
    "seed": _whole_number(0),
    "share": _Rule("lie in (0, 1]", lambda value: 0.0 < value <= 1.0, float),
    "truth": _one_of("boxes", "masks"),
    **dict.fromkeys(("batch_size", "cells", "iterations", "masks", "steps"), _whole_number(1)),
}


def checked(name: str, value: Any) -> Any:
    """Return an option's value as it is recorded: numbers on a scale as floats, sequences as tuples.

    Raises:
        ExplainerError: the option may not have this value.
    """
    if rule := _RULES.get(name):
        if not _holds(rule, value):
            raise ExplainerError(f"{name} must {rule.words}, got {value!r}")
        value = rule.recorded(value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return tuple(one if isinstance(one, str) else float(one) for one in value)


def _holds(rule: _Rule, value: Any) -> bool:
    try:
        return rule.holds(value)
    except TypeError:  # a text where a number belongs: settings come from YAML and from the command line
        return False
