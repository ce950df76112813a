"""What a run is made of: the settings schema beside its YAML profiles."""

from configs.loading import ConfigError, check_paths, load_settings, profile_path
from configs.schema import Settings

__all__ = ["ConfigError", "Settings", "check_paths", "load_settings", "profile_path"]
