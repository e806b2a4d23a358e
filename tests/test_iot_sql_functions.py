"""Functions of IoT Core's SQL, by the examples and tables of AWS's page iot-sql-functions.

Each test is from that page, function by function, but for what it says of other pages or that no source was found.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_of_rules import same, select, value

from simulator.cloud.iot_sql import UNDEFINED, SqlError
from simulator.cloud.iot_sql_functions import NOT_SIMULATED, SIMULATED


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("abs(-5)", 5), ("abs(-5.5)", 5.5), ("abs('-5.123')", 5.123), ("abs(true)", UNDEFINED),
        ("abs(none)", UNDEFINED), ("abs(list)", UNDEFINED), ("abs('x')", UNDEFINED),
        ("acos(0)", 1.5707963267948966), ("acos(2)", UNDEFINED), ("asin(0)", 0.0), ("atan(0)", 0.0),
        ("atan2(1, 0)", 1.5707963267948966), ("cos(0)", 1.0), ("cosh(2.3)", math.cosh(2.3)), ("sin(0)", 0.0),
        ("sinh(2.3)", math.sinh(2.3)), ("tan(3)", -0.1425465430742778), ("tanh(2.3)", 0.9800963962661914),
        ("bitand(13, 5)", 5), ("bitor(8, 5)", 13), ("bitxor(13, 5)", 8), ("bitand(13.9, '5')", 5),
        ("bitor('x', 5)", UNDEFINED), ("bitand(true, 1)", UNDEFINED),
        ("ceil(1.2)", 2), ("ceil(-1.2)", -1), ("ceil(3)", 3), ("ceil('1.2')", 2), ("ceil(true)", UNDEFINED),
        ("floor(1.2)", 1), ("floor(-1.2)", -2), ("floor(list)", UNDEFINED), ("floor('9e2')", 900),
        ("round(1.2)", 1), ("round(1.5)", 2), ("round(1.7)", 2), ("round(-1.1)", -1), ("round(-1.5)", -2),
        ("round(0.5)", 1), ("round(0.49999999999999994)", 0), ("round(7)", 7), ("round('2.5')", 3),
        ("round(none)", UNDEFINED),
        ("exp(0)", 1.0), ("exp(10000)", UNDEFINED), ("ln(1)", 0.0), ("ln(0)", UNDEFINED), ("log(100)", 2.0),
        ("mod(8, 3)", 2), ("remainder(8, 3)", 2), ("mod(8.5, 3)", 2.5), ("mod('8', 3)", 2.0),
        ("mod(8, true)", UNDEFINED),
        ("power(2, 5)", 32.0), ("power('2', 0.5)", math.sqrt(2)), ("power(-8, 0.5)", UNDEFINED),
        ("power(0, -1)", UNDEFINED), ("power(10, 400)", UNDEFINED),
        ("sign(-7)", -1), ("sign(0)", 0), ("sign(13)", 1), ("sign('-0.5')", -1), ("sign(on)", UNDEFINED),
        ("sqrt(9)", 3.0), ("sqrt(-1)", UNDEFINED), ("sqrt('9')", 3.0),
        ("trunc(2.3, 0)", 2), ("trunc(2.3123, 2)", 2.31), ("trunc(2.888, 2)", 2.88), ("trunc(2.00, 5)", 2),
        ("trunc(0.29, 2)", 0.29), ("trunc(-2.888, 1.9)", -2.8), ("trunc(2.5, -3)", 2), ("trunc(2.5, 99)", 2.5),
        ("trunc('2.55', 1)", 2.5), ("trunc(2.55, '1')", UNDEFINED), ("trunc(none, 1)", UNDEFINED), ("trunc(7, 2)", 7),
    ],
)  # fmt: skip
def test_numbers(expression: str, expected: Any) -> None:
    found = value(expression)
    assert same(found, expected), found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("chr(65)", "A"), ("chr(49)", "1"), ("chr(65.9)", "A"), ("chr('65')", "A"), ("chr(128)", UNDEFINED),
        ("chr(-1)", UNDEFINED), ("chr(true)", UNDEFINED), ("chr(none)", UNDEFINED),
        ('endswith("cat","at")', True), ("endswith('cat', 'c')", False), ("endswith(41, 1)", True),
        ("endswith('cat', none)", UNDEFINED), ("endswith(none, 'cat')", UNDEFINED),
        ('startswith("ranger","ran")', True), ("startswith('ranger', missing)", UNDEFINED),
        ('indexof("abcd", "bc")', 1), ("indexof(12345, 4)", 3),
        ("indexof('abcd', 'x')", -1),  # No source was found.
        ('length("hi")', 2), ("length(false)", 5), ("length(none)", UNDEFINED),
        ('lower("HELLO")', "hello"), ('lower(["HELLO"])', '["hello"]'), ('upper("hello")', "HELLO"),
        ('upper(["hello"])', '["HELLO"]'),
        ('lpad("hello", 2)', "  hello"), ("lpad(1, 3)", "   1"), ("lpad('a', 1.9)", " a"), ("lpad('a', '2')", "  a"),
        ("lpad('a', -5)", "a"), ("length(lpad('a', 5000))", 1001), ("lpad('a', true)", UNDEFINED),
        ("lpad(none, 1)", UNDEFINED),
        ('rpad("hello", 2)', "hello  "), ("rpad(1, 3)", "1   "),
        ('Ltrim(" h i ")', "h i "), ('rtrim(" h i ")', " h i"), ('Trim(" hi ")', "hi"), ("trim(none)", UNDEFINED),
        ("trim(1.5)", "1.5"), ("ltrim(\"\t a\")", "a"),
        ('numbytes("hi")', 2), ('numbytes("€")', 3),
        ('regexp_matches("aaaa", "a{2,}")', True), ('regexp_matches("aaaa", "b")', False),
        ("regexp_matches(42, '4')", True), ("regexp_matches('a', '(')", UNDEFINED),
        ("regexp_matches(none, 'a')", UNDEFINED),
        ('regexp_replace("abcd", "bc", "x")', "axd"), ('regexp_replace("abcd", "b(.*)d", "$1")', "ac"),
        ("regexp_replace('abcd', 'b', '$1')", UNDEFINED), ("regexp_replace('abcd', 'b', '\\$')", "a$cd"),
        ("regexp_replace('abcd', '(?<x>b)', '${x}${x}')", "abbcd"), ("regexp_replace('abcd', '[', '')", UNDEFINED),
        ("regexp_replace('abab', 'a|b', '')", ""),
        ('regexp_substr("hihihello", "hi")', "hi"), ('regexp_substr("hihihello", "(hi)*")', "hihi"),
        ("regexp_substr('abc', 'x')", UNDEFINED),  # No source was found.
        ('replace("abcd", "bc", "x")', "axd"), ('replace("abcdabcd", "b", "x")', "axcdaxcd"),
        ("replace('abc', none, 'x')", UNDEFINED), ("replace(121, 1, 3)", "323"),
        ('substring("012345", 0)', "012345"), ('substring("012345", 2)', "2345"),
        ('substring("012345", 2.745)', "2345"),
        ("substring(123, 2)", "3"), ('substring("012345", -1)', "012345"), ("substring(true, 1.2)", "rue"),
        ("substring(false, -2.411E247)", "false"), ('substring("012345", 1, 3)', "12"),
        ('substring("012345", -50, 50)', "012345"), ('substring("012345", 3, 1)', ""),
        ("substring('abc', none)", UNDEFINED), ("substring('abc', 0, none)", UNDEFINED),
        ("substring('abc', 'x')", UNDEFINED),
        ('md5("hello")', "5d41402abc4b2a76b9719d911017c592"), ("md5(none)", UNDEFINED),
        ("sha1('a')", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        ("encode('a', 'base64')", "YQ=="), ("encode(12, 'base64')", "MTI="), ("encode('a', 'hex')", UNDEFINED),
        ('decode("eyAidGVtcGVyYXR1cmUiOiAzMyB9Cg==", "base64").temperature', 33), ("decode('YQ==', 'base64')", "a"),
        ("decode('!', 'base64')", None), ("decode('é', 'base64')", None), ("decode('/w==', 'base64')", None),
    ],
)  # fmt: skip
def test_strings(expression: str, expected: Any) -> None:
    found = value(expression)
    assert same(found, expected), found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("concat()", UNDEFINED), ("concat(1)", "1"), ("concat([1, 2, 3], 4)", [1, 2, 3, 4]),
        ('concat([1, 2, 3], "hello")', [1, 2, 3, "hello"]), ('concat("con", "cat")', "concat"),
        ('concat(1, "hello")', "1hello"), ('concat("he","is","man")', "heisman"),
        ('concat([1, 2, 3], "hello", [4, 5, 6])', [1, 2, 3, "hello", 4, 5, 6]), ("concat([1])", [1]),
        ("concat('a', none)", UNDEFINED), ("concat('a', missing)", UNDEFINED), ("concat('a', 1.5, true)", "a1.5true"),
        ('get(["a", "b", "c"], 1)', "b"), ('get({"a":"b"}, "a")', "b"), ("get(list, '1')", 20), ("get(list, 1.9)", 20),
        # The table counts characters from 0; the example, get("abc", 1) = "a", does not.
        ("get('abc', 1)", "b"), ("get(list, 3)", UNDEFINED), ("get(list, -1)", UNDEFINED), ("get(list, on)", UNDEFINED),
        ("get(deep, 'with space')", 3), ("get({'1': 2}, 1)", UNDEFINED), ("get(7, 0)", UNDEFINED),
        ("isNull(5)", False), ("isNull(Null)", True), ("isnull(none)", True), ("isNull(missing)", False),
        ("isUndefined(5)", False), ("isUndefined(floor([1,2,3]))", True), ("isUndefined(none)", False),
        ("Nanvl(8, 3)", 8), ("nanvl(missing, 3)", 3), ("nanvl(none, 3)", 3), ("nanvl('x', 3)", "x"),
        ("topic()", "bikes/101/telemetry"), ("topic(1)", "bikes"), ("topic('2')", "101"), ("topic(2.9)", "101"),
        ("topic(4)", UNDEFINED), ("topic(0)", UNDEFINED), ("topic(true)", UNDEFINED),
        ("principal()", UNDEFINED), ("timestamp()", 1_620_240_672_076),
        # iot-sql-data-types: a wrong number of arguments.
        ("abs()", UNDEFINED), ("topic(1, 2)", UNDEFINED), ("timestamp(1)", UNDEFINED), ("replace('a', 'b')", UNDEFINED),
        ("sql_version(1)", UNDEFINED),
    ],
)  # fmt: skip
def test_values_and_messages(expression: str, expected: Any) -> None:
    found = value(expression)
    assert same(found, expected), found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # To Decimal. What is whole becomes an Int in the second version.
        ("cast('7.5' AS Decimal)", 7.5), ("cast(7.5 as decimal)", 7.5), ("cast(true as Decimal)", 1),
        ("cast(7 as Decimal)", 7), ("cast('x' AS Decimal)", UNDEFINED), ("cast(none AS Decimal)", UNDEFINED),
        ("cast('0.1000000000000000055511151231257827' AS Double)", 0.1), ("cast(list AS Double)", UNDEFINED),
        ("cast('1E400' AS Double)", UNDEFINED),
        # To Int: "down" is towards 0, for so strings lose their decimal places (iot-sql-data-types).
        ("cast(true as Int)", 1), ("cast(false AS Integer)", 0), ("cast(7.9 AS int)", 7), ("cast('7.9' AS INT)", 7),
        ("cast('-7.9' AS Int)", -7), ("cast('7x' AS Int)", UNDEFINED), ("cast(missing AS Int)", UNDEFINED),
        ("cast(deep AS Int)", UNDEFINED),
        # To Boolean.
        ("cast(0 AS Boolean)", False), ("cast(0.5 AS Bool)", True), ("cast(-3 AS Boolean)", True),
        ("cast('TRUE' AS Boolean)", True), ("cast('false' AS Boolean)", False), ("cast('1' AS Boolean)", UNDEFINED),
        ("cast(on AS Boolean)", True), ("cast(list AS Boolean)", UNDEFINED), ("cast(none AS Boolean)", UNDEFINED),
        # To String.
        ("cast(7 AS String)", "7"), ("cast(80.4 AS Nvarchar)", "80.4"), ("cast(on AS Text)", "true"),
        ("cast('abc' AS varchar)", "abc"), ("cast([1, 'a', null, 1.5] AS Ntext)", '[1,"a",null,1.5]'),
        ("cast({'a': 'b'} AS String)", '{"a":"b"}'), ("cast(none AS String)", UNDEFINED),
        ("cast(text AS Int) + 1", 43), ("cast(1E-7 AS String)", "1E-7"),
    ],
)  # fmt: skip
def test_cast(expression: str, expected: Any) -> None:
    found = value(expression)
    assert same(found, expected), found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("cast(true AS Double)", 1.0), ("cast(7 AS Double)", 7.0), ("cast('7' AS Double)", 7.0), ("cast(7 as Int)", 7)],
)
def test_cast_in_the_first_version(expression: str, expected: Any) -> None:
    found = value(expression, version="2015-10-08")
    assert same(found, expected), found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # The two examples of the page; the message is of 2021-05-05T18:51:12.076Z.
        ("parse_time(\"yyyy.MM.dd G 'at' HH:mm:ss z\", 100000000, \"America/Belize\")",
         "1970.01.01 AD at 21:46:40 CST"),
        ("parse_time(\"yyyy.MM.dd G 'at' HH:mm:ss z\", timestamp())", "2021.05.05 AD at 18:51:12 UTC"),
        ('parse_time("yyyy", timestamp(), "UTC")', "2021"),
        # Letters of Joda-Time's DateTimeFormat, to which the page refers.
        ("parse_time('yy-M-d', timestamp())", "21-5-5"), ("parse_time('MMM MMMM', 0)", "Jan January"),
        ("parse_time('E EEEE e', 0)", "Thu Thursday 4"), ("parse_time('h K k a', 0)", "12 0 24 AM"),
        ("parse_time('HH:mm:ss.SSS', timestamp())", "18:51:12.076"), ("parse_time('S SSSSS', 120)", "1 12000"),
        ("parse_time('Z ZZ ZZZ', 0, 'Asia/Kolkata')", "+0530 +05:30 Asia/Kolkata"),
        ("parse_time('HH z', 0, '-03:30')", "20 -03:30"), ("parse_time('Z', 0)", "+0000"),
        ("parse_time('D ww xxxx C', timestamp())", "125 18 2021 20"), ("parse_time(\"''yyyy'-'\", 0)", "'1970-"),
        ("parse_time('yyyyMMdd', '86400000')", "19700102"), ("parse_time('yyyy', -1)", "1969"),
        ("parse_time('j', 0)", UNDEFINED), ('parse_time("yyyy\'", 0)', UNDEFINED), ("parse_time('zzzz', 0)", UNDEFINED),
        ("parse_time('yyyy', 0, 'Nowhere')", UNDEFINED), ("parse_time('yyyy', 0, '../UTC')", UNDEFINED),
        ("parse_time('yyyy', 0, '+99:00')", UNDEFINED), ("parse_time('yyyy', 1E300)", UNDEFINED),
        ("parse_time('yyyy', none)", UNDEFINED), ("parse_time(none, 0)", UNDEFINED),
        ("parse_time('yyyy', 'x')", UNDEFINED),
        ("parse_time('', 0)", ""), ("parse_time('yyyy', 0, none)", UNDEFINED),
    ],
)  # fmt: skip
def test_parse_time(expression: str, expected: Any) -> None:
    found = value(expression)
    assert same(found, expected), found


def test_transform_adds_attributes_to_each_object_of_an_array() -> None:
    payload = {"attributes": {"data1": 1, "data2": 2}, "values": [{"a": 3}, {"b": 4}, {"c": 5}]}
    assert select("select value transform(\"enrichArray\", attributes, values) from 'A/B'", payload) == [
        {"a": 3, "data1": 1, "data2": 2},
        {"b": 4, "data1": 1, "data2": 2},
        {"c": 5, "data1": 1, "data2": 2},
    ]
    renamed = select('select value transform("enrichArray", {"key": attributes.data1}, values) from \'A/B\'', payload)
    assert renamed == [{"a": 3, "key": 1}, {"b": 4, "key": 1}, {"c": 5, "key": 1}]
    assert value("transform('other', attributes, values)", payload) is UNDEFINED
    assert value("transform('enrichArray', attributes, attributes)", payload) is UNDEFINED


def test_ids_of_messages() -> None:
    one, other = value("newuuid()"), value("newuuid()")
    assert one != other
    assert len(one) == len(value("traceid()")) == 36
    # A message by HTTP, which has no client id.
    assert value("clientid()", client_id="") == "n/a"
    assert value("traceid()", client_id="") is UNDEFINED
    assert 0.0 <= value("rand()") < 1.0


DOCUMENTED = """abs accountid acos asin atan atan2 aws_lambda bitand bitor bitxor bitnot cast ceil chr clientid concat
    cos cosh decode encode endswith exp floor get get_dynamodb get_mqtt_property get_or_default get_registry_data
    get_secret get_thing_shadow get_user_properties md2 md5 sha1 sha224 sha256 sha384 sha512 indexof isnull isundefined
    length ln log lower lpad ltrim machinelearning_predict mod nanvl newuuid numbytes parse_time power principal rand
    regexp_matches regexp_replace regexp_substr remainder replace rpad round rtrim sign sin sinh sourceip substring
    sql_version sqrt startswith tan tanh time_to_epoch timestamp topic traceid transform trim trunc upper"""


def test_every_function_of_the_page_is_known_and_no_other() -> None:
    assert set(DOCUMENTED.split()) == SIMULATED | NOT_SIMULATED
    assert not SIMULATED & NOT_SIMULATED


@pytest.mark.parametrize("name", ["coalesce", "nullif", "parse_json", "qos"])
def test_functions_of_other_languages_are_refused(name: str) -> None:
    with pytest.raises(SqlError, match=r"there is no function"):
        value(f"{name}(a)")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="'"), max_size=20)


@given(TEXTS, st.integers(-30, 30), st.integers(-30, 30))
@settings(max_examples=150, deadline=None)
def test_parts_of_a_string_make_it_up_again(text: str, first: int, second: int) -> None:
    payload = {"s": text, "i": first, "j": second}
    assert value("substring(s, 0, i) + substring(s, i)", payload) == text
    assert value("length(substring(s, i, j))", payload) <= max(0, second)
    assert value("trim(lpad(rpad(s, i), j)) = trim(s)", payload) is True
    assert value("decode(encode(concat('!', s), 'base64'), 'base64')", payload) == "!" + text
    assert value("numbytes(s)", payload) == len(text.encode())


@given(st.decimals(-1000, 1000, places=4))
@settings(max_examples=150, deadline=None)
def test_rounding_stays_near(number: Any) -> None:
    payload = {"n": str(number)}
    floor, ceil, nearest, cut = (value(f"{name}(n)", payload) for name in ("floor", "ceil", "round", "-1 * floor"))
    assert floor <= number <= ceil
    assert abs(nearest - number) * 2 <= 1
    assert value("round(-1 * n)", payload) == -nearest
    assert cut == -floor
    assert abs(value("trunc(n, 2)", payload)) <= abs(number)
