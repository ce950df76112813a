"""The methods SISE is compared with, behind the same face; `explainers.registry` names them."""
