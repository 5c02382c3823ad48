"""Signatures: the documentation's example, an independent client on the same inputs, and no secret in any text."""

import pickle
import traceback
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.signing import Credentials, encoded

KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ORDER = {"symbol": "LTCBTC", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "0.1",
         "recvWindow": 5000, "timestamp": 1499827319559}


@pytest.fixture
def credentials():
    return Credentials(KEY, SECRET)


def test_the_example_of_the_documentation(credentials):
    assert credentials.query(ORDER) == (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000"
        "&timestamp=1499827319559&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71")


@pytest.mark.parametrize("parameters", [
    ORDER, {"symbol": "BTCUSDT", "origClientOrderId": "00000007-0-42", "recvWindow": 2000, "timestamp": 1},
    {"symbol": "\u5e01\u5b89USDT", "timestamp": 2}, {"timestamp": 3}])
def test_an_independent_client_signs_the_same_inputs_in_the_same_way(credentials, parameters):
    client = pytest.importorskip("binance.client").Client(KEY, SECRET, ping=False)
    text = credentials.query(dict(sorted(parameters.items())))  # the order that it has
    theirs = client._generate_signature({name: str(value) for name, value in parameters.items()})
    assert text.rpartition("&signature=")[2] == theirs


def test_an_independent_client_signs_the_same_request_of_the_websocket_api(credentials):
    client = pytest.importorskip("binance.client").Client(KEY, SECRET, ping=False)
    theirs = client._sign_ws_params({"timestamp": 5, "recvWindow": 2000}, client._generate_ws_api_signature)
    assert credentials.frame({"timestamp": 5, "recvWindow": 2000}) == theirs
    assert list(credentials.frame({"timestamp": 5})) == ["apiKey", "timestamp", "signature"]


def test_the_websocket_api_has_values_signed_as_its_json_holds_them():
    """By its documentation; python-binance encodes them. No key of Binance's has a sign that tells the two apart."""
    credentials = Credentials("a/key+with=signs", SECRET)
    told = credentials.frame({"timestamp": 5})
    assert credentials.verifies("a/key+with=signs", "apiKey=a/key+with=signs&timestamp=5", told["signature"])


@given(st.dictionaries(st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True), st.text(st.characters(codec="utf-8"))
                       | st.integers()))
def test_it_is_encoded_as_the_standard_library_does_it(parameters):
    assert encoded(parameters) == urlencode(parameters, quote_via=quote, safe="")


def test_what_has_been_signed_is_verified_and_nothing_else(credentials):
    text = encoded(ORDER)
    assert credentials.verifies(KEY, text, credentials.sign(text)) and credentials.knows(KEY)
    assert credentials.verifies(KEY, text, credentials.sign(text).upper()), "the signature has no case"
    assert not credentials.verifies(KEY, text + "0", credentials.sign(text))
    assert not credentials.verifies("other", text, credentials.sign(text)) and not credentials.knows("other")
    assert not Credentials(KEY, "other").verifies(KEY, text, credentials.sign(text))


def test_no_text_made_of_it_has_the_secret_in_it(credentials):
    texts = [repr(credentials), str(credentials), f"{credentials}", repr([credentials]), credentials.query(ORDER)]
    try:
        vars(credentials)
    except TypeError as error:
        texts += traceback.format_exception(error)
    try:
        credentials.sign(None)
    except AttributeError as error:
        texts += traceback.format_exception(error)
    assert not [text for text in texts if SECRET in text]
    assert not [text for text in texts[:4] if KEY in text]
    assert pickle.loads(pickle.dumps(credentials)).knows(KEY), "it may travel between processes"
