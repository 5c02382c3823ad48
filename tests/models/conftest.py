"""One thread for linear algebra, as in `alpha`: pools of several would fight over the cores."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="the extra `train` is not installed")
    with threadpoolctl.threadpool_limits(1):
        yield
