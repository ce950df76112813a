"""How a network is trained: settings, objective, loop, checkpoints."""
