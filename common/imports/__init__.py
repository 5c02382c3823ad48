"""Foreign recordings as what this project reads: one module for each format."""
