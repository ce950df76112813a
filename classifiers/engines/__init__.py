"""Engines: what computes a network's logits. torch is the reference, OpenVINO is faster on CPUs."""
