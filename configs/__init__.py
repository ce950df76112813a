"""What a run is made of: the settings schema beside its YAML profiles."""

from configs.evaluation import EvaluationSettings, load_evaluation
from configs.loading import ConfigError, check_paths, load_settings, profile_path
from configs.schema import ExplainerSettings, Settings

__all__ = [
    "ConfigError",
    "EvaluationSettings",
    "ExplainerSettings",
    "Settings",
    "check_paths",
    "load_evaluation",
    "load_settings",
    "profile_path",
]
