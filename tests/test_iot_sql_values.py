"""IoT Core's SQL: operators and conversions, by the operand tables of AWS's reference.

Each test names the page of the developer guide that it is from, and says so where no source was found.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_of_rules import SECOND, message, same, value

from simulator.cloud.iot_sql import UNDEFINED, Context, SqlError, parse, parse_expression

# -- operators: the reference's page iot-sql-operators ---------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Two Ints make an Int. The page does not say where 7 / 2 goes, and iot-sql-set has an example in which it is
        # no Int; the operand table is what we keep to.
        ("5 + 2", 7), ("5 - 2", 3), ("6 * 7", 42), ("8 / 2", 4), ("7 / 2", 3), ("(0 - 7) / 2", -3), ("7 % 4", 3),
        ("(0 - 7) % 4", -3), ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("(50 - 32) * 5 / 9", 10),
        # One Decimal makes a Decimal, of 34 digits (iot-sql-data-types).
        ("5 + 2.5", 7.5), ("7 / 2.5", 2.8), ("7.5 % 2", 1.5), ("0.1 + 0.2", 0.3), ("cadence * 3", 241.2),
        ("1 / 3.1", Decimal("0.3225806451612903225806451612903226")),
        # Strings that are numbers, and only those, are converted; + puts strings together.
        ("text * 2", 84.0), ("'1.5' - '1'", 0.5), ("'5E-1' * 2", 1.0), ("text + 1", "421"), ("1 + text", "142"),
        ("'a' + 1", "a1"), ("'a' + 1.5", "a1.5"), ("'a' + true", "atrue"), ("list + 'x'", "[10,20,30]x"),
        ("{'a': 'b'} + ''", '{"a":"b"}'),
        ("'a' * 2", UNDEFINED), ("' 4' * 2", UNDEFINED), ("'+4' * 2", UNDEFINED), ("'.5' * 2", UNDEFINED),
        ("'1_0' * 2", UNDEFINED), ("'inf' * 2", UNDEFINED), ("'4.' * 2", UNDEFINED),
        # Every other value is Undefined, in a string too: there is no conversion of Null to String.
        ("missing + 1", UNDEFINED), ("'a' + missing", UNDEFINED), ("'a' + none", UNDEFINED), ("none + 1", UNDEFINED),
        ("true + 1", UNDEFINED), ("list + 1", UNDEFINED), ("list * 2", UNDEFINED), ("true % 2", UNDEFINED),
        # No source was found for these.
        ("1 / 0", UNDEFINED), ("1 % 0", UNDEFINED), ("1.5 / 0", UNDEFINED), ("-racerId", -101), ("-'5'", -5.0),
    ],
)  # fmt: skip
def test_arithmetic(expression: str, expected: Any) -> None:
    found = value(expression)
    assert same(found, expected), found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Both operands of < <= > >= are converted to Decimal.
        ("1 < 2", True), ("2 <= 2.0", True), ("0.1 + 0.2 <= 0.3", True), ("10 > '9'", True), ("'10' > '9'", True),
        ("'10' >= 10.5", False), ("cadence > 80", True), ("cadence >= '80.4'", True),
        ("'a' < 'b'", UNDEFINED), ("'a' <= 'a'", UNDEFINED), ("'x' > 1", UNDEFINED), ("true > false", UNDEFINED),
        ("none < 1", UNDEFINED), ("none >= none", UNDEFINED), ("list > 1", UNDEFINED), ("missing < 1", UNDEFINED),
        ("1 >= missing", UNDEFINED),
        # = and <> convert nothing but Int to Decimal; types that do not match are unequal.
        ("1 = 1.0", True), ("'42' = 42", False), ("'42' <> 42", True), ("text = '42'", True), ("'a' = 'A'", False),
        ("true = 'true'", False), ("true = 1", False), ("0 = false", False), ("none = 1", False), ("none <> 1", True),
        ("none <> none", False), ("[1, 'a'] = [1.0, 'a']", True), ("[1, 2] = [2, 1]", False), ("[1] = [true]", False),
        ("[1] <> ['1']", True), ("{'a': 1, 'b': 2} = {'b': 2, 'a': 1}", True), ("{'a': 1} = {'a': true}", False),
        ("{'a': 1} <> {'b': 1}", True), ("missing = 1", UNDEFINED), ("1 <> missing", UNDEFINED),
        ("missing = missing", UNDEFINED),
        # The table has no row for these two.
        ("none = none", True), ("true = true", True), ("true <> false", True),
        ("3 IN [1, 2, 3, 'three', 5.7, null]", True), ("'3' IN [1, 2, 3]", False), ("3 IN 3", UNDEFINED),
    ],
)  # fmt: skip
def test_comparison(expression: str, expected: Any) -> None:
    assert value(expression) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("true AND true", True), ("true AND false", False), ("false OR false", False), ("false OR true", True),
        ("NOT true", False), ("NOT false", True), ("NOT NOT true", True),
        ("'TRUE' AND true", True), ("'false' OR 'True'", True), ("NOT 'False'", True),
        # "Other value": Undefined, whatever the other operand is.
        ("true OR missing", UNDEFINED), ("missing OR true", UNDEFINED), ("false AND missing", UNDEFINED),
        ("true AND 1", UNDEFINED), ("1 OR 0", UNDEFINED), ("'yes' OR true", UNDEFINED), ("none AND false", UNDEFINED),
        ("NOT 1", UNDEFINED), ("NOT 'no'", UNDEFINED), ("NOT missing", UNDEFINED), ("NOT none", UNDEFINED),
    ],
)  # fmt: skip
def test_logic(expression: str, expected: Any) -> None:
    assert value(expression) is expected


@pytest.mark.parametrize("expression", ["name LIKE 'Hub%'", "'a' || 'b'", "1 != 2"])
def test_operators_that_the_page_does_not_have(expression: str) -> None:
    with pytest.raises(SqlError):
        parse_expression(expression)


NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.decimals(-1000, 1000, places=3))


@given(NUMBERS, NUMBERS)
@settings(max_examples=200, deadline=None)
def test_arithmetic_is_exact_and_the_remainder_is_what_division_leaves(one: Any, other: Any) -> None:
    left, right = (f"(0 - {abs(n)})" if n < 0 else str(n) for n in (one, other))
    assert value(f"{left} + {right}") == one + other
    assert value(f"{left} * {right}") == one * other
    assert value(f"{left} < {right}") is (one < other)
    assert value(f"{left} = {right}") is (one == other)
    if isinstance(one, int) and isinstance(other, int) and other:
        assert value(f"{left} / {right} * {right} + {left} % {right}") == one


# -- conversions: iot-sql-data-types -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        # A Decimal keeps its digits, an Int of more than 64 bits too.
        ("SELECT 0.1 + 0.2 AS x FROM 'a'", b'{"x":0.3}'),
        ("SELECT 1 / 3.0000000000000000000000000000001 AS x FROM 'a'", b'{"x":0.3333333333333333333333333333333222}'),
        ("SELECT 9223372036854775807 * 10 AS x FROM 'a'", b'{"x":92233720368547758070}'),
        ("SELECT [9223372036854775807 * 10, 0.5] AS x FROM 'a'", b'{"x":[92233720368547758070,0.5]}'),
        # What is Undefined is left out, and by itself it is an empty string.
        ("SELECT missing, 1 / 0 AS x FROM 'a'", b"{}"),
        ("SELECT VALUE missing FROM 'a'", b""),
        ("SELECT NULL AS n FROM 'a'", b'{"n":null}'),
    ],
)
def test_how_values_are_written(sql: str, told: bytes) -> None:
    assert parse(sql, SECOND).evaluate(Context(message())) == told


def test_an_int_has_34_digits() -> None:
    nines = "9" * 17
    assert value(f"{nines} * {nines}") == int(nines) ** 2
    longer = value(f"{nines} * {nines} * {nines}")
    assert isinstance(longer, Decimal)
    assert len(longer.as_tuple().digits) == 34
    with pytest.raises(SqlError, match="larger than a Decimal"):
        parse_expression("1e1000")
