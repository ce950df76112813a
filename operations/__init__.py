"""What kensa does, without Prefect, web or terminal."""
