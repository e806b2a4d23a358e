"""FilterCriteria: every rule of the documented syntax, the documented table of formats, and patterns that are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.runtime.config import MappingConfig
from consumers.runtime.errors import ConfigurationError
from consumers.runtime.event import EventBuilder
from consumers.runtime.filtering import Filters, Pattern

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/alleycat"
MAPPING = MappingConfig(name="m", function_name="f", stream_name="alleycat", stream_arn=ARN)
EVENTS = EventBuilder(MAPPING, "shardId-000000000006")


def passes(data: bytes | str, *patterns: str, key: str = "p") -> bool:
    encoded = EVENTS.record("7", key, data.encode() if isinstance(data, str) else data, 1545084650.987).encoded
    return Filters(patterns).passes(encoded)


def matches(rules: str, data: str) -> bool:
    """``rules`` for the field ``a`` of a record's data."""
    return passes(data, f'{{"data":{{"a":{rules}}}}}')


@pytest.mark.parametrize(
    ("rules", "data", "expected"),
    [
        # null and empty
        ("[null]", '{"a":null}', True),
        ("[null]", '{"a":""}', False),
        ("[null]", "{}", False),
        ('[""]', '{"a":""}', True),
        ('[""]', '{"a":null}', False),
        # equals: character by character; numbers as they are written
        ('["Alice"]', '{"a":"Alice"}', True),
        ('["Alice"]', '{"a":"alice"}', False),
        ("[300]", '{"a":300}', True),
        ("[300]", '{"a":300.0}', False),
        ("[300]", '{"a":3.0e2}', False),
        ("[300]", '{"a":"300"}', False),
        ('["300"]', '{"a":300}', False),
        ("[true]", '{"a":true}', True),
        ("[true]", '{"a":1}', False),
        ('["Credit","Debit"]', '{"a":"Debit"}', True),
        ('[{"equals-ignore-case":"aLiCe"}]', '{"a":"AlIcE"}', True),
        ('[{"equals-ignore-case":"7"}]', '{"a":7}', False),
        # not
        ('[{"anything-but":["Raining"]}]', '{"a":"Sunny"}', True),
        ('[{"anything-but":["Raining"]}]', '{"a":"Raining"}', False),
        ('[{"anything-but":"Raining"}]', '{"a":"Raining"}', False),
        ('[{"anything-but":["Raining"]}]', "{}", False),
        ('[{"anything-but":[100,200]}]', '{"a":300}', True),
        ('[{"anything-but":[100,200]}]', '{"a":200}', False),
        ('[{"anything-but":["x"]}]', '{"a":null}', True),
        # numeric
        ('[{"numeric":["=",100]}]', '{"a":100.0}', True),
        ('[{"numeric":["=",100]}]', '{"a":1e2}', True),
        ('[{"numeric":["=",100]}]', '{"a":"100"}', False),
        ('[{"numeric":[">",10,"<=",20]}]', '{"a":10}', False),
        ('[{"numeric":[">",10,"<=",20]}]', '{"a":10.5}', True),
        ('[{"numeric":[">",10,"<=",20]}]', '{"a":20}', True),
        ('[{"numeric":["<",0]}]', '{"a":-0.5}', True),
        ('[{"numeric":[">=",0]}]', '{"a":-0.5}', False),
        # exists, of leaves
        ('[{"exists":true}]', '{"a":null}', True),
        ('[{"exists":true}]', "{}", False),
        ('[{"exists":true}]', '{"a":{"b":1}}', False),
        ('[{"exists":true}]', '{"a":[]}', False),
        ('[{"exists":false}]', "{}", True),
        ('[{"exists":false}]', '{"a":1}', False),
        ('[{"exists":false}]', '{"a":{"b":1}}', True),
        ('["x",{"exists":false}]', '{"a":"x"}', True),
        ('["x",{"exists":false}]', '{"a":"y"}', False),
        # begins and ends with
        ('[{"prefix":"us-"}]', '{"a":"us-east-1"}', True),
        ('[{"prefix":"us-"}]', '{"a":"eu-us-"}', False),
        ('[{"prefix":"1"}]', '{"a":12}', False),
        ('[{"suffix":".png"}]', '{"a":"b.png"}', True),
        ('[{"suffix":".png"}]', '{"a":"b.PNG"}', False),
        # lists: one element is enough, and fields of one element belong together
        ('["x"]', '{"a":["w","x"]}', True),
        ('["x"]', '{"a":["w"]}', False),
        ('[{"anything-but":"x"}]', '{"a":["x","y"]}', True),
        ('{"b":[1],"c":[2]}', '{"a":[{"b":1,"c":2}]}', True),
        ('{"b":[1],"c":[2]}', '{"a":[{"b":1},{"c":2}]}', False),
        ('{"b":[{"exists":false}]}', '{"a":[{"b":1},{"c":2}]}', False),
        ('{"b":[{"exists":false}]}', '{"a":[{"c":2}]}', True),
        ('["x"]', '{"a":[["w"],["x"]]}', True),
        ('{"b":[1]}', '{"a":[[{"b":1}]]}', True),
        ('["x"]', '{"a":' + "[" * 900 + '"x"' + "]" * 900 + "}", True),
        ('{"b":[{"exists":false}]}', '{"a":' + "[" * 900 + '{"b":1}' + "]" * 900 + "}", False),
        ('["x"]', '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", False),
        # levels
        ('{"b":{"c":["x"]}}', '{"a":{"b":{"c":"x","d":1},"e":2}}', True),
        ('{"b":{"c":["x"]}}', '{"a":"x"}', False),
        ('{"b":[{"exists":false}]}', "{}", True),
    ],
)
def test_rules(rules: str, data: str, expected: bool) -> None:
    assert matches(rules, data) == expected


def test_fields_are_anded_filters_are_ored() -> None:
    both = '{"data":{"Location":["New York"],"Day":["Monday"]}}'
    assert passes('{"Location":"New York","Day":"Monday"}', both)
    assert not passes('{"Location":"New York","Day":"Friday"}', both)
    assert passes('{"x":2}', '{"data":{"x":[1]}}', '{"data":{"x":[2]}}')
    assert not passes('{"x":3}', '{"data":{"x":[1]}}', '{"data":{"x":[2]}}')


def test_or_over_fields_and_what_only_looks_like_it() -> None:
    pattern = '{"data":{"s":["a"],"$or":[{"x":[1]},{"y":[2],"z":[3]}]}}'
    assert passes('{"s":"a","x":1}', pattern)
    assert passes('{"s":"a","y":2,"z":3}', pattern)
    assert not passes('{"s":"a","y":2}', pattern)
    assert not passes('{"s":"b","x":1}', pattern)
    # One branch is no choice: then it is a field's name.
    assert passes('{"$or":{"x":1}}', '{"data":{"$or":{"x":[1]}}}')
    assert passes("plain", '{"$or":[{"partitionKey":["p"]},{"data":{"x":[1]}}]}') is False, "it names the data"


# Incoming data, pattern, and what is done (CAH with-kinesis-filtering, "Properly filtering Kinesis messages").
@pytest.mark.parametrize(
    ("data", "pattern", "expected"),
    [
        (b'{"x":1}', '{"data":{"x":[1]}}', True),
        (b'{"x":2}', '{"data":{"x":[1]}}', False),
        (b'{"x":1}', '{"partitionKey":["p"]}', True),
        (b'{"x":1}', '{"partitionKey":["q"]}', False),
        (b"plain", '{"data":{"x":[1]}}', False),
        (b"plain", '{"data":{"x":[{"exists":false}]}}', False),
        (b"\xff\x00", '{"data":{"x":[{"exists":false}]}}', False),
        (b"NaN", '{"data":{"x":[{"exists":false}]}}', False),
        (b"plain", '{"partitionKey":["p"]}', True),
        (b"plain", '{"partitionKey":["q"]}', False),
    ],
)
def test_the_table_of_formats(data: bytes, pattern: str, expected: bool) -> None:
    assert passes(data, pattern) == expected


def test_a_dynamodb_record_is_matched_as_it_is() -> None:
    record = {
        "eventName": "INSERT",
        "eventSource": "aws:dynamodb",
        "dynamodb": {"Keys": {"Id": {"N": "101"}}, "NewImage": {"Message": {"S": "New item!"}, "Id": {"N": "101"}}},
    }
    encoded = json.dumps(record).encode()
    for pattern, expected in [
        ('{"dynamodb":{"Keys":{"Id":{"N":["101"]}}}}', True),
        ('{"dynamodb":{"Keys":{"Id":{"N":["102"]}}}}', False),
        ('{"eventName":["INSERT"],"dynamodb":{"NewImage":{"Message":{"S":[{"prefix":"New"}]}}}}', True),
        ('{"eventName":["REMOVE"]}', False),
        ('{"dynamodb":{"NewImage":{"Message":[{"exists":true}]}}}', False),
    ]:
        assert Filters([pattern], "DynamoDB").passes(encoded) == expected, pattern


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("{", "is not JSON"),
        ('{"data":{"x":[NaN]}}', "NaN is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"a":' * 600 + "[1]" + "}" * 600, "is nested deeper than 100 levels"),
        ("{}", "at its top: an object must name at least one field"),
        ('{"data":["text"]}', "compares 'data' as a whole"),
        ('{"data":{"x":[]}}', "at data.x: a list of rules must not be empty"),
        ('{"data":{"x":"y"}}', "at data.x: a field's rules must be a list or an object"),
        ('{"data":{"x":[["y"]]}}', "must not hold lists"),
        ('{"data":{"x":[{"wildcard":"*"}]}}', "unknown operator 'wildcard'; there are exists, prefix"),
        ('{"data":{"x":[{}]}}', "exactly one operator, got none"),
        ('{"data":{"x":[{"prefix":"a","suffix":"b"}]}}', "exactly one operator"),
        ('{"data":{"x":[{"prefix":7}]}}', "'prefix' must have a string"),
        ('{"data":{"x":[{"exists":"yes"}]}}', "'exists' must be true or false"),
        ('{"data":{"x":[{"anything-but":[]}]}}', "'anything-but' must have"),
        ('{"data":{"x":[{"anything-but":{"prefix":"a"}}]}}', "'anything-but' must have"),
        ('{"data":{"x":[{"numeric":[">"]}]}}', "'numeric' must have one comparison or a range"),
        ('{"data":{"x":[{"numeric":["~",5]}]}}', "'numeric' must have"),
        ('{"data":{"x":[{"numeric":["=","5"]}]}}', "'numeric' must have"),
        ('{"data":{"x":[{"numeric":["<",5,">",0]}]}}', "from its lower to its higher end"),
        ('{"data":{"x":[{"numeric":[">",5,"<",5]}]}}', "from its lower to its higher end"),
    ],
)
def test_wrong_patterns_are_refused_at_the_start(pattern: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match="mapping 'm': the filter pattern ") as raised:
        MappingConfig(
            name="m", function_name="f", stream_name="alleycat", stream_arn=ARN, filter_patterns=('{"a":[1]}', pattern)
        )
    assert complaint in str(raised.value)


def test_a_pattern_for_dynamodb_must_not_compare_the_change_as_a_whole() -> None:
    with pytest.raises(ConfigurationError, match="compares 'dynamodb' as a whole"):
        Pattern('{"dynamodb":["x"]}', "DynamoDB")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b", "ab"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(["x", "y", "z"]), json_values, max_size=3)


def own_pattern(document: dict[str, Any]) -> dict[str, Any]:
    """The pattern that names every leaf of the document outside its lists."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            if inner := own_pattern(value):
                found[key] = inner
        elif not isinstance(value, list):
            found[key] = [value]
    return found


@given(documents)
def test_a_document_matches_its_own_pattern_and_loses_by_any_other_value(document: dict[str, Any]) -> None:
    pattern = own_pattern(document)
    if not pattern:
        return
    assert Pattern(json.dumps({"d": pattern})).matches(json_as_read({"d": document}))
    key = next(iter(pattern))
    different = {**pattern, key: ["no such value"]}
    assert not Pattern(json.dumps({"d": different})).matches(json_as_read({"d": document}))


@given(documents, st.sampled_from(["x", "y", "z"]))
def test_a_field_either_exists_or_does_not(document: dict[str, Any], key: str) -> None:
    there, absent = (
        Pattern(json.dumps({"d": {key: [{"exists": exists}]}})).matches(json_as_read({"d": document}))
        for exists in (True, False)
    )
    assert there != absent


@given(documents, documents)
def test_or_is_either(one: dict[str, Any], document: dict[str, Any]) -> None:
    first, second = own_pattern(one), {"q": [1]}
    if not first:
        return
    record = json_as_read(document)
    either = Pattern(json.dumps({"$or": [first, second]})).matches(record)
    assert either == (Pattern(json.dumps(first)).matches(record) or Pattern(json.dumps(second)).matches(record))


def json_as_read(document: Any) -> Any:
    from consumers.runtime.filtering import _loads

    return _loads(json.dumps(document))
