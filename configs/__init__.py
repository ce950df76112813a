"""What a run is made of: the settings schema beside its YAML profiles."""
