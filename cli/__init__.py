"""The command line, `kensa`: typer and rich are known here and nowhere else."""
