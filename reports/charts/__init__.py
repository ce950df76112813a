"""Charts as numbers ready to be drawn; templates/charts.svg draws them."""
