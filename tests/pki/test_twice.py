"""A JSON object that says a name twice is refused by everyone who reads JSON that people write."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.callbacks.answers import NotAnAnswer, credential_in
from delegator.desk import policy_file
from delegator.errors import DelegatorError
from delegator.signing import Signed
from pki import batch
from pki.tables import Table
from pki.twice import said_twice

_TEXTS = st.text(alphabet='ab"\\:,{ü', max_size=4)
_VALUES = st.recursive(st.none() | st.integers() | _TEXTS, lambda inner: st.lists(inner, max_size=3)
                       | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=8)


@given(_VALUES, st.booleans())
def test_what_says_each_name_once_is_left_alone(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert said_twice(text, value) is None
    assert said_twice(text.encode(), value) is None


@given(st.dictionaries(_TEXTS, _VALUES, min_size=1, max_size=3), _VALUES, st.data())
def test_a_name_is_found_twice_at_any_depth_however_it_is_written(one: dict[str, object], other: object,
                                                                  data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(one)))
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in name)
    text = json.dumps(one)[:-1] + f', "{spelled}": {json.dumps(other)}}}'
    for _ in range(data.draw(st.integers(0, 3))):
        text = data.draw(st.sampled_from(['{"in": %s}', '[1, %s, "x"]', '{"a": "\\"", "b": [%s]}'])) % text
    assert said_twice(text, json.loads(text)) == name


def _row(text: str) -> None:
    ((_, values),) = Table(io.BytesIO(text.encode()), ("service_tag", "customer"), ("service_tag",), others=True)
    if isinstance(values, str):
        raise ValueError(values)


def _tag(text: str) -> None:
    (row,) = batch.rows(io.BytesIO(text.encode()))
    if isinstance(row, batch.RowFault):
        raise ValueError(str(row))


def _statement(text: str) -> None:
    if not Signed(text, "", "").says({"service_tag": "ABC1234", "customer": "acme", "beside": {"a": 2}}):
        raise ValueError("says something twice")


READERS: dict[str, tuple[Callable[[str], object], str, str, tuple[type[Exception], ...]]] = {
    "a row of a table": (_row, "service_tag", '"ABC1234"', (ValueError,)),
    "a tag to mint": (_tag, "service_tag", '"ABC1234"', (ValueError,)),
    "a policy": (lambda text: policy_file.read(text.encode(), "rollout"), "approved_only", "false", (DelegatorError,)),
    "an answer of a program": (lambda text: credential_in(text.encode(), "ABC1234"), "user_name", '"one"',
                               (NotAnAnswer,)),
    "a signed statement": (_statement, "service_tag", '"ABC1234"', (ValueError,))}


@pytest.mark.parametrize("spelled", [lambda name: name, lambda name: name.replace("_", "\\u005f")])
@pytest.mark.parametrize(("read", "name", "value", "errors"), READERS.values(), ids=READERS)
def test_every_reader_refuses_it(read: Callable[[str], object], name: str, value: str,
                                 errors: tuple[type[Exception], ...], spelled: Callable[[str], str]) -> None:
    besides = ', "password": "two"' if name == "user_name" else ""
    read(f'{{"{name}": {value}{besides}}}')
    with pytest.raises(errors, match="twice"):
        read(f'{{"{name}": {value}{besides}, "{spelled(name)}": {value}}}')


def test_what_cannot_be_looked_through_is_refused_and_no_crash() -> None:
    deep = '{"service_tag": "ABC1234", "x": ' + "[" * 5000 + "]" * 5000 + "}"
    with pytest.raises(ValueError, match="JSON"):
        _row(deep)
    long = '{"service_tag": "A", "x": ' + "1" * 5000 + ', "service_tag": "B"}'
    with pytest.raises(ValueError, match=r"twice|JSON"):
        _row(long)
    assert said_twice(long, {}) == "service_tag"
