"""Warming compiles everything that stages compile."""

from click.testing import CliRunner

from procs.warm import warm


def test_the_kernels_are_ready():
    result = CliRunner().invoke(warm)
    assert result.exit_code == 0 and "kernels ready" in result.output
