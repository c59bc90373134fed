"""Contract: many rows are written as they are, all or none, whichever way is an engine's quickest. A4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.errors import DelegatorError, Kind
from delegator.store import Store
from delegator.store.bulk import TOGETHER, insert, split, statements
from delegator.store.transaction import Query, Row, Rows, Value

INTO = "orders (order_number, customer, delegate)"
ODD = ["\\N", "\\.", "a\tb", "a\nb", "a\\tb", "'; DROP TABLE orders --", '"', "ü", "\U0001f4e6", " ", "NULL", "\x7f"]
"""What an engine might take for its own words, or for a missing value."""


async def kept(store: Store) -> list[Row]:
    found = await store._driver.read(Query("SELECT order_number, customer, delegate FROM orders"))
    return sorted((tuple(row) for row in found), key=str)


@pytest.mark.parametrize("count", [0, 1, 2, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER + 7])
async def test_a4_every_row_is_there_once(shop: Store, count: int) -> None:
    rows: list[tuple[Value, ...]] = [(f"O-{n:04}", "acme", "acme-soap" if n % 3 else None) for n in range(count)]
    await shop._driver.run(lambda: insert(INTO, rows))
    assert await kept(shop) == rows


async def test_a4_a_value_is_kept_to_the_letter(shop: Store) -> None:
    rows: list[tuple[Value, ...]] = [(odd, "acme", None) for odd in ODD]
    await shop._driver.run(lambda: insert(INTO, rows))
    assert await kept(shop) == sorted(rows, key=str)


@pytest.mark.parametrize("bad", [("O-0007", "acme", None), ("O-new", "nobody", None), (None, "acme", None)])
async def test_a4_one_row_that_cannot_be_kept_keeps_all_out(shop: Store, bad: tuple[Value, ...]) -> None:
    """Whether it repeats another, refers to nothing or lacks a value; and what was written before it goes too."""
    rows: list[tuple[Value, ...]] = [*((f"O-{n:04}", "acme", None) for n in range(300)), bad]

    def work():
        yield Query("INSERT INTO customers (name, title) VALUES ('half', 'Half')")
        yield from insert(INTO, rows)

    with pytest.raises(DelegatorError) as failed:
        await shop._driver.run(work)
    assert failed.value.kind is Kind.CONFLICT
    assert "O-0007" not in str(failed.value)
    assert await kept(shop) == []
    assert {one.name for one in await shop.customers()} == {"acme", "umbra"}
    await shop._driver.run(lambda: insert(INTO, rows[:-1]))
    assert len(await kept(shop)) == 300


@given(st.integers(1, 5), st.integers(0, 2000))
def test_rows_come_out_as_they_went_in_and_statements_have_few_lengths(width: int, count: int) -> None:
    columns = [f"c{n}" for n in range(width)]
    values: tuple[Value, ...] = tuple(range(width * count))
    rows = Rows(f"things ({', '.join(columns)})", values)
    table, named, records = split(rows)
    assert (table, named) == ("things", columns)
    assert tuple(value for record in records for value in record) == values
    asked = list(statements(rows))
    assert tuple(value for one in asked for value in one.parameters) == values
    assert {len(one.parameters) // width for one in asked} <= {1 << n for n in range(9)}
    assert all(one.sql.count("(") == 1 + len(one.parameters) // width for one in asked)
