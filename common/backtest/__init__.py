"""A recording through features, model and orders at many times its speed: for `alpha backtest`.

    frames  many frames at a time, to the same bits       report      what came of it, as one tree
    chunks  from frames to rows, predictions, orders      html, plot  the report for people
"""
