"""What a run writes: models, runs, batches of outcomes."""
