"""The control plane of rules, boto3's ``iot``: create, replace, get, list, delete, enable, disable."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from simulator.cloud.errors import AwsError
from simulator.cloud.iot_rules import Rule, RuleEngine
from simulator.cloud.request_model import check
from simulator.cloud.topic_filters import matches

_NAME = re.compile(r"[a-zA-Z0-9_]{1,128}")
_PAGE_MAX = 10_000
Answer = tuple[int, dict[str, str], bytes]


class RulesApi:
    """Answers for the rules of one region."""

    def __init__(self, engine: RuleEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock

    def handle(self, method: str, path: str, query: str, body: bytes) -> Answer | None:
        """None when the request is about something else. Never raises for anything a client sent."""
        parts = path.strip("/").split("/")
        if parts[0] != "rules" or len(parts) > 3:
            return None
        try:
            name = unquote(parts[1]) if len(parts) > 1 else ""
            told = self._answer(method, name, parts[2] if len(parts) == 3 else "", query, body)
            content = b"" if told is None else orjson.dumps(told)
            return 200, {"content-type": "application/json"}, content
        except AwsError as error:
            answer = orjson.dumps({"message": error.message})
            return error.status, {"content-type": "application/json", "x-amzn-errortype": error.code}, answer

    def _answer(self, method: str, name: str, verb: str, query: str, body: bytes) -> dict[str, Any] | None:
        engine, now = self._engine, self._clock()
        if not name:
            if method != "GET":
                raise AwsError("InvalidRequestException", f"{method} /rules is not an operation of IoT Core.")
            return self._list(parse_qs(query))
        if not _NAME.fullmatch(name):
            raise AwsError(
                "InvalidRequestException", f"A rule's name has 1 to 128 of a-z, A-Z, 0-9 and _, not {name!r}."
            )
        match method, verb:
            case "POST", "":
                engine.create(name, self._payload("CreateTopicRule", name, body), now)
            case "PATCH", "":
                engine.replace(name, self._payload("ReplaceTopicRule", name, body), now)
            case "GET", "":
                rule = engine.get(name)
                return {"ruleArn": self._arn(name), "rule": _described(rule)}
            case "DELETE", "":
                engine.delete(name)
            case "POST", ("enable" | "disable"):
                rule = engine.get(name)
                rule.is_disabled = verb == "disable"
                rule.payload["ruleDisabled"] = rule.is_disabled
            case _:
                raise AwsError("InvalidRequestException", f"{method} is no operation on a rule.")
        return None

    def _payload(self, operation: str, name: str, body: bytes) -> dict[str, Any]:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise AwsError("InvalidRequestException", f"The request is no JSON: {error}.") from None
        try:
            checked = check("iot", operation, {"ruleName": name, "topicRulePayload": document})
        except AwsError as error:
            raise AwsError("InvalidRequestException", error.message or "The request is not valid.") from None
        found: dict[str, Any] = checked["topicRulePayload"]
        return found

    def _arn(self, name: str) -> str:
        return f"arn:aws:iot:{self._engine.region}:{self._engine.account_id}:rule/{name}"

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        topic, disabled = query.get("topic", [""])[0], query.get("ruleDisabled", [""])[0]
        asked, token = query.get("maxResults", ["100"])[0], query.get("nextToken", [""])[0]
        if not asked.isdigit() or not 1 <= int(asked) <= _PAGE_MAX:
            raise AwsError("InvalidRequestException", f"maxResults is a number from 1 to {_PAGE_MAX}, not {asked!r}.")
        try:
            after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        except ValueError:
            raise AwsError("InvalidRequestException", f"nextToken {token!r} is not one of ours.") from None
        found = [
            rule
            for name, rule in sorted(self._engine.rules.items())
            if name > after
            and (not topic or matches(rule.statement.topic_filter, topic))
            and (not disabled or rule.is_disabled == (disabled == "true"))
        ]
        page = found[: int(asked)]
        told: dict[str, Any] = {
            "rules": [
                {
                    "ruleArn": self._arn(rule.name),
                    "ruleName": rule.name,
                    "topicPattern": rule.statement.topic_filter,
                    "createdAt": rule.created_at,
                    "ruleDisabled": rule.is_disabled,
                }
                for rule in page
            ]
        }
        if len(found) > len(page):
            told["nextToken"] = base64.urlsafe_b64encode(page[-1].name.encode()).decode()
        return told


def _described(rule: Rule) -> dict[str, Any]:
    return {
        "ruleName": rule.name,
        "createdAt": rule.created_at,
        "ruleDisabled": rule.is_disabled,
        "awsIotSqlVersion": "2015-10-08",
        **{name: value for name, value in rule.payload.items() if name != "ruleDisabled"},
    }
