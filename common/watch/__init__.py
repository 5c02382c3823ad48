"""What looks on: the pipeline as other tools understand it. Reads, and disturbs nothing."""
