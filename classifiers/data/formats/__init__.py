"""Layouts of labelled pictures, one module each: class folders, CSV, and those of published data sets."""
