"""IoT Core's SQL and substitution templates, mostly by the examples of AWS's reference."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sql_of_rules import SECOND, message, select

from simulator.cloud.iot_sql import Context, NotJsonError, SqlError, parse
from simulator.cloud.iot_sql_functions import NOT_SIMULATED, SIMULATED
from simulator.cloud.iot_templates import compile_template

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
        ("SELECT deep.a.b AS b, get(deep.a.b, 1).c AS c FROM 'a'", {"b": [1, {"c": "x"}], "c": "x"}),
        ("SELECT deep.a.b FROM 'a'", {"b": [1, {"c": "x"}]}),
        ("SELECT missing, racerId FROM 'a'", {"racerId": 101}),
        ("SELECT missing FROM 'a'", {}),
        ("SELECT none FROM 'a'", {"none": None}),
        ("SELECT topic(2) AS bike, timestamp() AS ts, clientid() AS who FROM 'a'",
         {"bike": "101", "ts": 1_620_240_672_076, "who": "bike-101"}),
        ("SELECT VALUE list FROM 'a'", [10, 20, 30]),
        ("SELECT [racerId, cadence] AS pair, {'id': racerId, 'gone': missing} AS o FROM 'a'",
         {"pair": [101, 80.4], "o": {"id": 101}}),
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


def test_a_payload_that_is_no_object_can_be_looked_at_by_decoding_it() -> None:
    """The example of iot-sql-where."""
    decoded = "decode(encode(*, 'base64'), 'base64')"
    sql = f"SELECT {decoded} AS value FROM 'topic/subtopic' WHERE {decoded} > 50"
    assert select(sql, b"80") == {"value": 80}
    assert select(sql, b"50") is None


# -- iot-sql-json, iot-sql-literals, iot-sql-case ------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "payload", "expected"),
    [
        # JSON extensions: a path after AS, as in AS bar.baz. That it nests is from rules that write to shadows
        # (AS state.reported.x); the page does not show the result.
        ("SELECT foo.bar AS bar.baz FROM 'a'", {"foo": {"bar": "RED"}}, {"bar": {"baz": "RED"}}),
        ("SELECT a AS x.y, b AS x.z FROM 'a'", {"a": 1, "b": 2}, {"x": {"y": 1, "z": 2}}),
        ("SELECT *, a AS x.y FROM 'a'", {"a": 1, "x": {"z": 2}}, {"a": 1, "x": {"z": 2, "y": 1}}),
        ("SELECT *, a AS x.y FROM 'a'", {"a": 1, "x": 2}, {"a": 1, "x": {"y": 1}}),
        ("SELECT temp, md5(deviceid) AS hashed_id FROM 'topic/#'", {"deviceid": "iot123", "temp": 54.98},
         {"temp": 54.98, "hashed_id": "e37f81fb397e595c4aeb5645b8cbbbd1"}),
        ("SELECT * FROM 'iot/rules' WHERE get(get(get(mydata,\"item2\"),\"0\"),\"my-key\") = \"myValue\"",
         {"mydata": {"item2": {"0": {"my-key": "myValue"}}}}, {"mydata": {"item2": {"0": {"my-key": "myValue"}}}}),
        # Literals.
        ("SELECT {'latitude': get(lat_long, 0),'longitude':get(lat_long, 1)} as lat_long FROM 'topic/subtopic'",
         {"lat_long": [47.606, -122.332]}, {"lat_long": {"latitude": 47.606, "longitude": -122.332}}),
        ("SELECT [lat,long] as lat_long FROM 'topic/subtopic'", {"lat": 47.696, "long": -122.332},
         {"lat_long": [47.696, -122.332]}),
        # Strings have quotes of either kind, as the examples on the page of functions have them.
        ("SELECT \"it's\" AS a, 'say \"x\"' AS b, upper(\"x\") AS c FROM \"a/b\"", {}, {"a": "it's", "b": 'say "x"',
         "c": "X"}),
        # CASE.
        ("SELECT CASE color WHEN 'green' THEN 'go' WHEN 'yellow' THEN 'caution' WHEN 'red' THEN 'stop' "
         "ELSE 'you are not at a stop light' END as instructions FROM 'a/b'", {"color": "yellow"},
         {"instructions": "caution"}),
        ("SELECT CASE color WHEN 'green' THEN 'go' ELSE 'other' END as x FROM 'a/b'", {"color": "red"}, {"x": "other"}),
        ("SELECT CASE color WHEN 'green' THEN 'go' END as x FROM 'a/b'", {"color": "red"}, {}),
        ("SELECT CASE color WHEN 'green' THEN 'go' ELSE 'other' END as x FROM 'a/b'", {}, {}),
        ("SELECT CASE color WHEN 'red' THEN 1 WHEN 'red' THEN 2 END as x FROM 'a/b'", {"color": "red"}, {"x": 1}),
        ("SELECT CASE (n > 5) WHEN true THEN 'big' ELSE 'small' END as x FROM 'a/b'", {"n": 7}, {"x": "big"}),
        ("SELECT CASE n WHEN missing THEN 1 WHEN '7' THEN 2 WHEN 7.0 THEN 3 END as x FROM 'a/b'", {"n": 7}, {"x": 3}),
    ],
)  # fmt: skip
def test_extensions_literals_and_cases(sql: str, payload: Any, expected: Any) -> None:
    assert select(sql, payload) == expected


def test_a_path_after_as_leaves_the_message_as_it_was() -> None:
    context = Context(message({"a": 1, "x": {"z": 2}}))
    assert parse("SELECT *, a AS x.y FROM 'a'", SECOND).evaluate(context) == b'{"a":1,"x":{"z":2,"y":1}}'
    assert context.document == {"a": 1, "x": {"z": 2}}


SENSORS = {
    "e": [
        {"n": "temperature", "u": "Cel", "t": 1234, "v": 22.5},
        {"n": "light", "u": "lm", "t": 1235, "v": 135},
        {"n": "acidity", "u": "pH", "t": 1235, "v": 7},
    ]
}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT (SELECT VALUE n FROM e) as sensors FROM 'my/topic'", {"sensors": ["temperature", "light", "acidity"]}),
        ("SELECT (SELECT v FROM e WHERE n = 'temperature') as temperature FROM 'my/topic'",
         {"temperature": [{"v": 22.5}]}),
        ("SELECT get((SELECT v FROM e WHERE n = 'temperature'), 0).v as temperature FROM 'topic'",
         {"temperature": 22.5}),
        # Below no source was found, but for transform's third example, which selects from an object.
        ("SELECT (SELECT *, n AS name FROM e WHERE v < 10) AS x FROM 'a'",
         {"x": [{"n": "acidity", "u": "pH", "t": 1235, "v": 7, "name": "acidity"}]}),
        ("SELECT (SELECT VALUE missing FROM e) AS x FROM 'a'", {"x": []}),
        ("SELECT (SELECT n FROM missing) AS x, topic(1) AS t FROM 'a'", {"t": "bikes"}),
        ("SELECT (SELECT topic(1) AS t, traceid() = traceid() AS same FROM e WHERE n = 'light') AS x FROM 'a'",
         {"x": [{"t": "bikes", "same": True}]}),
    ],
)  # fmt: skip
def test_nested_queries(sql: str, expected: Any) -> None:
    """The examples of iot-sql-nested-queries."""
    assert select(sql, SENSORS) == expected


def test_nested_queries_of_an_object() -> None:
    """The third example of transform() (iot-sql-functions)."""
    payload = {
        "data1": "example",
        "data2": {
            "a": "first attribute",
            "b": "second attribute",
            "c": [{"x": {"someInt": 5}, "y": True}, {"x": {"someInt": 10}, "y": False}],
        },
    }
    sql = "select value transform('enrichArray', (select a, b from data2), (select value c from data2)) from 'A/B'"
    assert select(sql, payload) == [
        {"x": {"someInt": 5}, "y": True, "a": "first attribute", "b": "second attribute"},
        {"x": {"someInt": 10}, "y": False, "a": "first attribute", "b": "second attribute"},
    ]


# -- iot-rule-sql-version ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT {'a': 1} AS x FROM 'a'", "an object written out needs awsIotSqlVersion 2016-03-23"),
        ("SELECT [1] AS x FROM 'a'", "an array written out needs"),
        ("SELECT (SELECT VALUE n FROM e) AS x FROM 'a'", "a SELECT in a SELECT needs"),
        ("SELECT length(a) AS x FROM 'a'", "the function length() needs"),
        ("SELECT isUndefined(a) AS x FROM 'a'", "the function isUndefined() needs"),
        ("SELECT cast(a AS Boolean) AS x FROM 'a'", "no cast as 'Boolean' in awsIotSqlVersion 2015-10-08"),
    ],
)
def test_what_came_with_the_second_version_is_refused_by_the_first(sql: str, told: str) -> None:
    parse(sql, SECOND)
    parse(sql, "beta")
    with pytest.raises(SqlError, match=re.escape(told)):
        parse(sql, "2015-10-08")


@pytest.mark.parametrize(
    ("sql", "first", "second"),
    [
        # The note in iot-sql-data-types: 10.0 is processed as the Int 10 by the second version only.
        ("SELECT a FROM 'a'", b'{"a":10.0}', b'{"a":10}'),
        ("SELECT a / 4 AS x FROM 'a'", b'{"x":2.5}', b'{"x":2}'),
        ("SELECT get(b, 0) / 4 AS x FROM 'a'", b'{"x":2.5}', b'{"x":2}'),
        ("SELECT 10.0 / 4 AS x FROM 'a'", b'{"x":2.5}', b'{"x":2}'),
        ("SELECT cast(10 AS Double) / 4 AS x FROM 'a'", b'{"x":2.5}', b'{"x":2}'),
        ("SELECT concat(a, '') AS x FROM 'a'", b'{"x":"10.0"}', b'{"x":"10"}'),
        ("SELECT c / 4 AS x FROM 'a'", b'{"x":2.625}', b'{"x":2.625}'),
        ("SELECT sql_version() AS x FROM 'a'", b'{"x":"2015-10-08"}', b'{"x":"2016-03-23"}'),
    ],
)
def test_versions_differ_in_what_a_whole_number_is(sql: str, first: bytes, second: bytes) -> None:
    context = Context(message(b'{"a": 10.0, "b": [10.0], "c": 10.5}'))
    assert parse(sql).evaluate(context) == first
    assert parse(sql, SECOND).evaluate(context) == second


# -- what is refused -----


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
        ("SELECT a AS b.FROM 'a'", "AS takes a name"),
        ("SELECT a.\"b c\" FROM 'a'", "get() takes any"),
        ("SELECT a[0] AS x FROM 'a'", "an element is get(array, index)"),
        ("SET @a = 1 SELECT @a AS x FROM 'a'", "SET and its variables are not simulated"),
        ("SELECT (SELECT b FROM a AS x FROM 'a'", "')' is missing"),
        ("SELECT (SELECT b) AS x FROM 'a'", "needs FROM"),
        ("SELECT CASE WHEN a > 1 THEN 2 END AS x FROM 'a'", "CASE takes a value"),
        ("SELECT cast(a, 'Int') AS x FROM 'a'", "AS is missing"),
        ("SELECT cast(a as", "')' is missing"),
        ("SELECT cast(a as Date) AS x FROM 'a'", "no cast as 'Date'"),
        ("SELECT a.  FROM 'a'", "after the dot"),
        ("SELECT a AS FROM 'a'", "AS takes a name"),
        ("SELECT 'open FROM a", "cannot be read"),
        ("SELECT CASE a END AS x FROM 'a'", "CASE needs WHEN"),
        ("SELECT " + "(" * 80 + "1" + ")" * 80 + " AS x FROM 'a'", "nested more than 50"),
    ],
)
def test_statements_that_are_none(sql: str, told: str) -> None:
    with pytest.raises(SqlError, match=re.escape(told)):
        parse(sql, SECOND)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(SqlError, match="2016-03-23"):
        parse("SELECT * FROM 'a'", "2020-01-01")


WORDS = st.sampled_from(
    ["SELECT ", "* ", "FROM ", "'a/b' ", "WHERE ", "a", ".b", "[0]", "(", ")", ", ", "AS x ", "= ", "1 ", "'s' ",
     "NOT ", "AND ", "CASE ", "WHEN ", "THEN ", "END ", "topic(", "get(", "{", "}", "-", "${", '"', "'", "IN ", "null ",
     "SELECT VALUE ", "cast(", " AS Int)", "concat(", "+ ", "% ", "1.5 "]
)  # fmt: skip


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map("".join)), st.binary(max_size=40))
@settings(max_examples=400, deadline=None)
@example("SELECT * FROM 'a' WHERE a = 1", b'{"a": 1}')
def test_no_text_and_no_payload_breaks_anything(sql: str, payload: bytes) -> None:
    try:
        statement = parse(sql, SECOND)
    except SqlError as error:
        assert str(error)
        return
    try:
        told = statement.evaluate(Context(message(payload)))
    except NotJsonError:
        return
    assert told is None or isinstance(told, bytes)


LEAVES = ["1", "-2.5", "1E300", "9999999999999999999999999999999999", "'a'", "'1.5'", "''", "true", "null", "missing",
          "a", "a.b", "[1, 'x']", "{'k': 1.0}", "'(a)*'", "'$1'", "'base64'", "'\u00e9'"]  # fmt: skip


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from([*"+-*/%<>=", "<>", "<=", ">=", "AND", "OR", "IN"])
    return st.one_of(
        st.builds("({} {} {})".format, inner, operators, inner),
        st.builds("cast({} AS {})".format, inner, st.sampled_from(["String", "Int", "Double", "Decimal", "Boolean"])),
        st.builds("CASE {} WHEN {} THEN {} ELSE {} END".format, inner, inner, inner, inner),
        st.builds(
            "{}({})".format, st.sampled_from(sorted(SIMULATED - {"cast"})), st.lists(inner, max_size=3).map(", ".join)
        ),
    )


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5),
              st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner)),
    max_leaves=6,
)  # fmt: skip


@given(st.recursive(st.sampled_from(LEAVES), _combined, max_leaves=8), st.dictionaries(st.sampled_from("ab"), JSON))
@settings(max_examples=400, deadline=None)
def test_whatever_can_be_written_gives_json_or_nothing(expression: str, payload: Any) -> None:
    told = parse(f"SELECT {expression} AS x FROM 'a'", SECOND).evaluate(Context(message(payload)))
    assert told is not None
    assert set(json.loads(told)) <= {"x"}


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
        # That what has no string is "undefined" or "null" here is not in the reference.
        ("${none}", "null"),
        ('${parse_time("yyyy", timestamp(), "UTC")}', "2021"),
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
