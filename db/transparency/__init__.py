"""What outsiders can check: the Merkle tree, signed notes, checkpoints, inclusion proofs."""
