"""Errors say what, where and what to do, and have exit codes that stay."""

import pytest

from common import errors

CODES = {"AlphaError": 1, "ConfigError": 2, "ContractError": 3, "LayoutError": 3, "WireError": 3, "ModelError": 3,
         "LifeCycleError": 3, "VenueError": 4, "ResourceError": 5, "InstanceError": 6}


def test_an_error_says_what_where_and_what_to_do():
    error = errors.ConfigError("a value is wrong", where="x=3", remedy="use 4")
    assert str(error) == "a value is wrong (x=3): use 4"
    assert str(errors.ConfigError("a value is wrong")) == "a value is wrong"


@pytest.mark.parametrize("name, code", CODES.items())
def test_exit_codes_are_stable(name, code):
    assert getattr(errors, name).exit_code == code


def test_the_tree_in_the_docstring_is_the_tree():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == set(CODES) and all(name in errors.__doc__ for name in classes)
