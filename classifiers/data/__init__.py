"""Labelled pictures: data sets, splits by group, augmentation, overlap of two sets."""
