"""IoT Core's SQL and substitution templates, mostly by the examples of AWS's reference."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.cloud.iot_sql import UNDEFINED, Context, Message, NotJsonError, SqlError, parse, parse_expression
from simulator.cloud.iot_sql_functions import NOT_SIMULATED
from simulator.cloud.iot_templates import compile_template

BIKE = {
    "racerId": 101,
    "raceId": 5403307,
    "cadence": 80.4,
    "name": "Hubert",
    "on": True,
    "none": None,
    "deep": {"a": {"b": [1, {"c": "x"}]}, "with space": 3},
    "list": [10, 20, 30],
    "text": "42",
}


def message(payload: Any = None, topic: str = "bikes/101/telemetry", **more: Any) -> Message:
    body = payload if isinstance(payload, bytes) else json.dumps(BIKE if payload is None else payload).encode()
    return Message(topic, body, more.pop("client_id", "bike-101"), 1_620_240_672_076, **more)


def select(sql: str, payload: Any = None, **more: Any) -> Any:
    told = parse(sql, "2016-03-23").evaluate(Context(message(payload, **more)))
    return None if told is None else json.loads(told)


def value(expression: str, payload: Any = None, **more: Any) -> Any:
    return parse_expression(expression)(Context(message(payload, **more)))


def same(found: Any, expected: Any) -> bool:
    """Equal, an Int to an Int and a Decimal, here written as a ``float``, to the Decimal of those digits."""
    if isinstance(found, Decimal | float) and isinstance(expected, float):
        return Decimal(str(found)) == Decimal(repr(expected))
    return type(found) is type(expected) and bool(found == expected)


# -- SELECT --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe\x00binary", b"not json", b'{"a" : 1}', b"[1, 2]"])
def test_star_passes_the_payload_as_it_is(payload: bytes) -> None:
    statement = parse("SELECT * FROM 'a/b'")
    assert statement.evaluate(Context(message(payload))) == payload


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT racerId, name FROM 'a'", {"racerId": 101, "name": "Hubert"}),
        ("select racerId as id, 'x' as constant from 'a'", {"id": 101, "constant": "x"}),
        ("SELECT deep.a.b AS b, deep.a.b[1].c AS c FROM 'a'", {"b": [1, {"c": "x"}], "c": "x"}),
        ("SELECT deep.a.b FROM 'a'", {"b": [1, {"c": "x"}]}),
        ("SELECT missing, racerId FROM 'a'", {"racerId": 101}),
        ("SELECT missing FROM 'a'", {}),
        ("SELECT none FROM 'a'", {"none": None}),
        ("SELECT topic(2) AS bike, timestamp() AS ts, clientid() AS who FROM 'a'",
         {"bike": "101", "ts": 1_620_240_672_076, "who": "bike-101"}),
        ("SELECT VALUE list FROM 'a'", [10, 20, 30]),
        ("SELECT [racerId, cadence] AS pair, {'id': racerId, 'gone': missing} AS o FROM 'a'",
         {"pair": [101, 80.4], "o": {"id": 101}}),
        ("SELECT CASE racerId WHEN 101 THEN 'mine' ELSE 'other' END AS whose FROM 'a'", {"whose": "mine"}),
        ("SELECT CASE WHEN cadence > 100 THEN 'fast' WHEN cadence > 50 THEN 'fair' END AS pace FROM 'a'",
         {"pace": "fair"}),
        ("SELECT racerId FROM 'a' WHERE cadence >= 80 AND name = 'Hubert' AND NOT none = 1", None),
        ("SELECT racerId FROM 'a' WHERE cadence >= 80 AND name = 'Hubert'", {"racerId": 101}),
        ("SELECT racerId FROM 'a' WHERE racerId IN [100, 101]", {"racerId": 101}),
        ("SELECT racerId FROM 'a' WHERE racerId <> 101 OR topic(1) = 'bikes'", {"racerId": 101}),
        ("SELECT racerId FROM 'a' WHERE topic() = 'other'", None),
        ("SELECT racerId FROM 'a' WHERE missing > 1", None),
        ("SELECT racerId FROM 'a' WHERE NOT missing > 1", None),
        ("SELECT racerId FROM 'a' WHERE missing > 1 OR on", None),
        ("SELECT racerId FROM 'a' WHERE isUndefined(missing) AND isNull(none)", {"racerId": 101}),
    ],
)  # fmt: skip
def test_select(sql: str, expected: Any) -> None:
    if expected is None and "NOT none = 1" in sql:
        # null = 1 is false, so its negation holds; only Undefined would not match.
        assert select(sql) == {"racerId": 101}
        return
    assert select(sql) == expected


def test_star_with_more_adds_to_the_payload() -> None:
    assert select("SELECT *, topic(3) AS kind, 7 AS racerId FROM 'a'", {"x": 1}) == {
        "x": 1,
        "kind": "telemetry",
        "racerId": 7,
    }


@pytest.mark.parametrize("payload", [b"\xff", b"nope", b"[1]"])
def test_what_looks_into_a_payload_that_is_no_object_is_a_parse_error(payload: bytes) -> None:
    with pytest.raises(NotJsonError):
        parse("SELECT *, topic(1) AS t FROM 'a'").evaluate(Context(message(payload)))
    assert parse("SELECT * FROM 'a' WHERE racerId = 1").evaluate(Context(message(payload))) is None
    # Nothing of the payload is needed for these.
    assert parse("SELECT topic(1) AS t FROM 'a'").evaluate(Context(message(payload))) == b'{"t":"bikes"}'
    assert parse("SELECT * FROM 'a' WHERE topic(1) = 'bikes'").evaluate(Context(message(payload))) == payload


def test_binary_payloads_can_be_encoded() -> None:
    assert select("SELECT encode(*, 'base64') AS data FROM 'a'", b"\x00\xff") == {"data": "AP8="}


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
    assert parse(sql, "2016-03-23").evaluate(Context(message())) == told


def test_an_int_has_34_digits() -> None:
    nines = "9" * 17
    assert value(f"{nines} * {nines}") == int(nines) ** 2
    longer = value(f"{nines} * {nines} * {nines}")
    assert isinstance(longer, Decimal)
    assert len(longer.as_tuple().digits) == 34
    with pytest.raises(SqlError, match="larger than a Decimal"):
        parse_expression("1e1000")


# -- expressions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Functions, each as in the reference.
        ("abs(-5)", 5), ("ceil(1.2)", 2), ("floor(1.8)", 1), ("round(1.5)", 2), ("round(-1.5)", -2),
        ("round(-1.1)", -1), ("round(0.49999999999999994)", 0),
        ("mod(8, 3)", 2), ("power(2, 5)", 32), ("sqrt(9)", 3.0), ("sign(-7)", -1), ("trunc(2.3456, 2)", 2.34),
        ("concat('he', 'llo', 1)", "hello1"), ("lower('HELLO')", "hello"), ("upper('hello')", "HELLO"),
        ("length('hi')", 2), ("indexof('abcd', 'bc')", 1), ("startswith('ranger', 'ran')", True),
        ("endswith('ranger', 'r')", True), ("substring('012345', 2)", "2345"), ("substring('012345', 2, 4)", "23"),
        ("trim('  a ')", "a"), ("replace('abc', 'b', 'x')", "axc"), ("get(list, 1)", 20), ("get('abc', 1)", "b"),
        ("get(deep, 'with space')", 3), ("get(list, 9)", UNDEFINED), ("cast('7' AS int)", SqlError),
        ("cast(7.9, 'Int')", 7), ("cast('true', 'Boolean')", True), ("cast(7, 'String')", "7"),
        ("isnull(none)", True), ("isundefined(missing)", True), ("coalesce(missing, none, 3)", 3),
        ("nullif(1, 1)", None), ("chr(65)", "A"), ("parse_json('[1]')", [1]),
        ("md5('hello')", "5d41402abc4b2a76b9719d911017c592"), ("topic(4)", UNDEFINED), ("topic(0)", UNDEFINED),
        ("topic()", "bikes/101/telemetry"), ("qos()", 0), ("principal()", UNDEFINED), ("log(100)", 2.0),
        ("ln(0)", UNDEFINED),
    ],
)  # fmt: skip
def test_expressions(expression: str, expected: Any) -> None:
    if expected is SqlError:
        with pytest.raises(SqlError):
            value(expression)
        return
    found = value(expression)
    assert same(found, expected), found


def test_every_message_has_its_own_ids() -> None:
    one, other = value("newuuid()"), value("newuuid()")
    assert one != other
    assert len(one) == 36
    assert value("clientid()", client_id="") == "n/a"


@pytest.mark.parametrize("name", sorted(NOT_SIMULATED))
def test_what_is_not_simulated_says_so(name: str) -> None:
    with pytest.raises(SqlError, match=r"not simulated here"):
        parse(f"SELECT {name}(a) AS x FROM 't'")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("", "begins with SELECT"),
        ("SELECT", "a value is expected"),
        ("SELECT * FROM alleycat", "takes a topic filter in quotes"),
        ("SELECT * FROM 'a/#/b'", "# stands alone"),
        ("SELECT * FROM 'a' WHERE", "a value is expected"),
        ("SELECT * FROM 'a' GROUP BY b", "nothing more is expected"),
        ("SELECT 1 FROM 'a'", "needs AS"),
        ("SELECT nosuch(1) AS x FROM 'a'", "there is no function nosuch()"),
        ("SELECT topic(1, 2) AS x FROM 'a'", "takes 0 to 1 arguments, not 2"),
        ("SELECT a.  FROM 'a'", "after the dot"),
        ("SELECT a AS FROM 'a'", "AS takes a name"),
        ("SELECT 'open FROM a", "cannot be read"),
        ("SELECT CASE a END AS x FROM 'a'", "CASE needs WHEN"),
        ("SELECT " + "(" * 80 + "1" + ")" * 80 + " AS x FROM 'a'", "nested more than 50"),
    ],
)
def test_statements_that_are_none(sql: str, told: str) -> None:
    with pytest.raises(SqlError, match=told.replace("(", r"\(").replace(")", r"\)")):
        parse(sql)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(SqlError, match="2016-03-23"):
        parse("SELECT * FROM 'a'", "2020-01-01")


WORDS = st.sampled_from(
    ["SELECT ", "* ", "FROM ", "'a/b' ", "WHERE ", "a", ".b", "[0]", "(", ")", ", ", "AS x ", "= ", "1 ", "'s' ",
     "NOT ", "AND ", "CASE ", "WHEN ", "THEN ", "END ", "topic(", "get(", "{", "}", "-", "${", '"', "'", "IN ", "null "]
)  # fmt: skip


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map("".join)), st.binary(max_size=40))
@settings(max_examples=400, deadline=None)
@example("SELECT * FROM 'a' WHERE a = 1", b'{"a": 1}')
def test_no_text_and_no_payload_breaks_anything(sql: str, payload: bytes) -> None:
    try:
        statement = parse(sql)
    except SqlError as error:
        assert str(error)
        return
    try:
        told = statement.evaluate(Context(message(payload)))
    except NotJsonError:
        return
    assert told is None or isinstance(told, bytes)


# -- templates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("constant", "constant"),
        ("${racerId}", "101"),
        ("${cadence}", "80.4"),
        ("${topic()}", "bikes/101/telemetry"),
        ("${topic(2)}", "101"),
        ("${clientid()}", "bike-101"),
        ("${timestamp()}", "1620240672076"),
        ("race-${raceId}/${racerId}.json", "race-5403307/101.json"),
        ("${missing}", "undefined"),
        ("${deep.a.b}", '[1,{"c":"x"}]'),
        ("${concat('{', racerId, '}')}", "{101}"),
        ("${on}", "true"),
        ("${none}", "null"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert compile_template(template)(Context(message())) == expected


def test_a_template_over_a_payload_that_is_no_json_is_undefined() -> None:
    assert compile_template("k-${racerId}")(Context(message(b"\xff"))) == "k-undefined"
    assert compile_template("${topic(1)}")(Context(message(b"\xff"))) == "bikes"


@pytest.mark.parametrize("template", ["${", "${racerId", "${}", "${1 +}", "${nosuch()}"])
def test_templates_that_are_none(template: str) -> None:
    with pytest.raises(SqlError):
        compile_template(template)


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_rendering_never_fails(payload: bytes) -> None:
    for template in ("${racerId}", "${a.b}-${topic(9)}", "${get(a, 0)}", "${a + b}"):
        assert isinstance(compile_template(template)(Context(message(payload))), str)
