"""The features: what they are, and where a tick becomes a row.

    table         all there are, by name
    choice        those that one model takes, or a ring has
    rows          the writer of the rows ring: here a tick becomes a row
    kernel        what is computed for it, in compiled code: one tick, or a day of them; its parts are
    kernel_book   the newest book alone      kernel_flow   what a tick adds      kernel_time   what counts seconds
    kernel_state  sums over windows, and where they lie
    state         what remembers longer than a window, in shared memory
"""
