"""Topic filters: what matches, and the tree against the plain function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cloud.topic_filters import FilterTree, matches, problem_with_filter, problem_with_topic

LEVELS = st.sampled_from(["", "a", "b", "$a"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.one_of(LEVELS, st.just("+")), min_size=0, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_matched"),
    [
        ("sensor/#", "sensor", False),
        ("sensor/#", "sensor/", True),
        ("sensor/#", "sensor/a/b", True),
        ("sensor/+", "sensor/a/b", False),
        ("+/+", "/a", True),
        ("#", "$aws/events", False),
        ("+/events", "$aws/events", False),
        ("$aws/#", "$aws/events", True),
        ("a", "A", False),
    ],
)
def test_what_matches(topic_filter: str, topic: str, is_matched: bool) -> None:
    tree: FilterTree[int] = FilterTree()
    tree.add(topic_filter, "k", 1)
    assert matches(topic_filter, topic) is is_matched
    assert tree.match(topic) == [1] * is_matched


@given(st.lists(FILTERS, max_size=12), st.lists(TOPICS, max_size=8))
def test_the_tree_finds_what_matches_and_forgets_all(filters: list[str], topics: list[str]) -> None:
    tree: FilterTree[int] = FilterTree()
    for key, one in enumerate(filters):
        tree.add(one, key, key)
        tree.add(one, key, key)
    for topic in topics:
        assert sorted(tree.match(topic)) == [key for key, one in enumerate(filters) if matches(one, topic)]
    for key, one in enumerate(filters):
        tree.remove(one, key)
        tree.remove(one, key)
        for topic in topics:
            assert key not in tree.match(topic)
    assert tree.is_empty


@pytest.mark.parametrize("topic_filter", ["", "a+", "+a", "a/#/b", "#a", "a/b#", "a\0", "a" * 257, "a/b/c/d/e/f/g/h/i"])
def test_filters_that_are_refused(topic_filter: str) -> None:
    assert problem_with_filter(topic_filter)


@given(TOPICS)
def test_a_topic_is_a_filter(topic: str) -> None:
    assert problem_with_topic(topic) is None
    assert problem_with_filter(topic) is None
    assert matches(topic, topic)
