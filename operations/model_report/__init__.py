"""The report of a model version: facts, examination, quality of its maps, mistakes."""
