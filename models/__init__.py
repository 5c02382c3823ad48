"""Recipes that train and export models, and the artefacts that they made. Needs the extra `train`."""
