"""Commands around the model."""
