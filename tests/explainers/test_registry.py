"""The public face."""

from __future__ import annotations

import subprocess
import sys

import pytest

import explainers
from explainers import ExplainerError, create_explainer, list_explainers


def test_the_list_names_what_can_be_created(small):
    assert list_explainers() == ("sise",)
    for name in list_explainers():
        explainer = create_explainer(name, small())
        assert explainer.method == name
        assert create_explainer(name, small(), **explainer.parameters).parameters == explainer.parameters


def test_an_unknown_method_is_named(small):
    with pytest.raises(ExplainerError, match="'lime'; there is: sise"):
        create_explainer("lime", small())


def test_a_model_must_be_a_module():
    with pytest.raises(ExplainerError, match=r"torch\.nn\.Module, got function"):
        create_explainer("sise", lambda x: x)


def test_everything_announced_can_be_had():
    for name in explainers.__all__:
        assert getattr(explainers, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'explain'"):
        _ = explainers.explain


def test_drawing_does_not_wait_for_torch():
    code = "import sys, explainers.drawing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
