"""The doors: thin Prefect flows that join the rooms, and the command line."""
