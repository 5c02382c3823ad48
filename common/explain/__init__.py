"""Why an order is what it is, and what a day came to: for `alpha explain` and `alpha daily`.

    context  what the journal keeps beside an order       text, plot     an explanation for people
    order    everything behind an order, as one tree      day, day_html  a day: as a tree, and as a report
    replay   row and probability made again, bit by bit
"""
