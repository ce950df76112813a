"""What reports say: frozen records."""
