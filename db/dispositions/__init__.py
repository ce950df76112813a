"""What people decide about findings, and their signatures."""
