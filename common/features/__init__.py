"""The features: what they are, and where a tick becomes a row.

    table   all there are, by name                        kernel       their code, compiled: one tick or a day of them
    choice  those that one model takes, or a ring has     kernel_book, kernel_flow, kernel_time   its parts by what
    rows    the writer of the rows ring                                they look at
    state   what remembers longer than a window           kernel_state sums over windows, and where they lie
"""
