"""The model package on disk: its files, manifest, preprocessing, thresholds, network, parity."""
