"""warm: compile the kernels into their cache beside the source, so that stages start in a second."""

import time

import click


@click.command()
def warm() -> None:
    """Compile what is compiled (once per machine and version); seconds the first time, then under one.

    Writes machine code into common/__pycache__, where every stage finds it. A stage that finds none compiles for
    itself, and waits for that before it is ready.

    \b
    Examples
      alpha warm
    """
    start = time.monotonic()
    from common.features.rows import warm_up as warm_features
    from common.market import warm_up as warm_market

    warm_market()
    warm_features()
    click.echo(f"kernels ready after {time.monotonic() - start:.1f} s")
