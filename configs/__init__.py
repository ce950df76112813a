"""The settings of a run: their schema, beside the YAML profiles that ship with kensa."""
