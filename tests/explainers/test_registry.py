"""The public face."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import explainers
from explainers import ExplainerError, create_explainer, explainer_options, list_explainers

METHODS = (
    "ada-sise",
    "extremal-perturbation",
    "fullgrad",
    "grad-cam",
    "grad-cam++",
    "integrated-gradients",
    "layer-cam",
    "rise",
    "score-cam",
    "sise",
    "sise-fast",
)


def test_the_list_is_in_alphabetical_order():
    assert list_explainers() == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_what_is_listed_can_be_created_and_created_again(name, small):
    model = small()
    explainer = create_explainer(name, model, activation="sigmoid")
    assert explainer.method == name
    options = explainer_options(name)
    assert set(explainer.parameters) == set(options)
    assert "activation" in options
    assert "model" not in options
    told = json.loads(json.dumps(explainer.parameters))
    assert create_explainer(name, model, **told).parameters == explainer.parameters


def test_options_come_in_the_order_of_the_signature():
    assert explainer_options("score-cam") == ("layer", "activation", "batch_size")
    with pytest.raises(ExplainerError, match="no explainer is named 'lime'"):
        explainer_options("lime")


def test_an_unknown_method_or_option_is_named(small):
    with pytest.raises(ExplainerError, match="'lime'; there is: ada-sise, extremal-perturbation"):
        create_explainer("lime", small())
    with pytest.raises(ExplainerError, match="grad-cam has no option 'masks'; it has: layer, activation"):
        create_explainer("grad-cam", small(), masks=5)


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


def test_the_packages_of_the_eval_extra_are_not_imported_before_they_are_used():
    code = (
        "import sys, torch.nn; from explainers import create_explainer, explainer_options, list_explainers; "
        "[create_explainer(name, torch.nn.ReLU()) for name in list_explainers() if 'sise' not in name]; "
        "sys.exit(bool({'torchcam', 'captum', 'pytorch_grad_cam', 'cv2', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
