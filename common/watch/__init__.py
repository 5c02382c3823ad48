"""What looks on at a running pipeline and disturbs none of it."""
