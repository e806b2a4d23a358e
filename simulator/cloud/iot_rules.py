"""IoT Core's rules engine: which rules a message matches, what their actions do, and what becomes of failures.

No I/O of its own: records, messages and objects go out through :class:`Outlets`, and a retry asks ``later`` to be
called again. A rule runs its actions one by one for each message; the Kinesis action is one PutRecord a message, as
on AWS, so nothing is batched and each message rounds up on its own.

AWS says that a failed action may be retried and then the error action runs, once for a rule and message with all its
failures (developer guide, *Error handling*). It does not say how often; ``LimitSettings.iot_action_attempts`` and
``iot_action_retry_seconds`` do, with the three attempts that it documents for the HTTP action.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from simulator.cloud import limits
from simulator.cloud.errors import AwsError
from simulator.cloud.iot_actions import Action, KinesisAction, RepublishAction, S3Action, compile_action
from simulator.cloud.iot_meter import NAMESPACE
from simulator.cloud.iot_sql import Context, Message, NotJsonError, SqlError, Statement, parse
from simulator.cloud.limits import LimitSettings, TokenBucket
from simulator.cloud.metrics import Dimensions, Metrics
from simulator.cloud.topic_filters import FilterTree

PARTITION_KEY_MAX_CHARACTERS = 256
REPUBLISH_MAX_DEPTH = 10
"""Republish actions that one message goes through. AWS leaves loops to the user, and bills them; here they end."""
_PREFIX = "$aws/rules/"

__all__ = ["Failure", "Message", "Outlets", "Rule", "RuleEngine", "basic_ingest"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an action failed. ``is_retryable``: the same may work later."""

    code: str
    message: str
    is_retryable: bool = False

    def __str__(self) -> str:
        return f"{self.message} (Error code: {self.code})" if self.message else self.code


class Outlets(Protocol):
    """Where actions go."""

    def put_record(self, region: str, stream: str, data: bytes, partition_key: str, now: float) -> Failure | None: ...

    def republish(self, message: Message, now: float) -> None: ...

    def put_object(
        self, region: str, bucket: str, key: str, body: bytes, acl: str | None, done: Callable[[Failure | None], None]
    ) -> None: ...


@dataclass(slots=True)
class Rule:
    """A rule as it was created; ``payload`` is the API's TopicRulePayload."""

    name: str
    payload: dict[str, Any]
    statement: Statement
    actions: tuple[Action, ...]
    error_action: Action | None
    created_at: float
    is_disabled: bool = False
    dimensions: Dimensions = ()

    @classmethod
    def of(cls, name: str, payload: dict[str, Any], now: float) -> Rule:
        """:raises AwsError: SqlParseException or InvalidRequestException."""
        version = payload.get("awsIotSqlVersion") or "2015-10-08"
        try:
            statement = parse(payload["sql"], version)
        except SqlError as error:
            raise AwsError("SqlParseException", f"Expected a valid SQL statement: {error}.") from None
        actions = payload.get("actions") or []
        most = int(limits.IOT_RULE_ACTIONS)
        if len(actions) > most:
            raise AwsError("InvalidRequestException", f"A rule has at most {most} actions, this one {len(actions)}.")
        error_action = payload.get("errorAction")
        return cls(
            name,
            payload,
            statement,
            tuple(compile_action(action, version) for action in actions),
            compile_action(error_action, version) if error_action else None,
            now,
            bool(payload.get("ruleDisabled")),
            (("RuleName", name),),
        )


@dataclass(slots=True)
class _Run:
    """One rule on one message: its actions still to end, its failures so far."""

    rule: Rule
    context: Context
    left: int
    failures: list[dict[str, str]] = field(default_factory=list)


def basic_ingest(topic: str) -> tuple[str, str] | None:
    """The rule and the rest of ``$aws/rules/RULE/rest``; None for any other topic."""
    if not topic.startswith(_PREFIX):
        return None
    name, _, rest = topic[len(_PREFIX) :].partition("/")
    return name, rest


class RuleEngine:
    """The rules of one account and region. ``later(delay_s, callback)`` calls back."""

    def __init__(
        self,
        region: str,
        account_id: str,
        metrics: Metrics,
        settings: LimitSettings,
        outlets: Outlets,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.region, self.account_id = region, account_id
        self.rules: dict[str, Rule] = {}
        self._metrics, self._settings, self._outlets = metrics, settings, outlets
        self._clock, self._later = clock, later
        self._tree: FilterTree[Rule] = FilterTree()
        rate = limits.IOT_RULE_EVALUATIONS.value
        self._evaluations = TokenBucket(rate, rate * settings.iot_burst_seconds, clock())

    # -- the rules -------------------------------------------------------------------------------------

    def create(self, name: str, payload: dict[str, Any], now: float) -> Rule:
        """:raises AwsError: ResourceAlreadyExistsException, LimitExceededException, and as :meth:`Rule.of`."""
        if name in self.rules:
            raise AwsError("ResourceAlreadyExistsException", f"The rule {name} already exists.", 409)
        if len(self.rules) >= int(limits.IOT_RULES):
            raise AwsError("LimitExceededException", f"The account has {len(self.rules)} rules, the most there can be.")
        return self._add(Rule.of(name, payload, now))

    def replace(self, name: str, payload: dict[str, Any], now: float) -> Rule:
        """:raises AwsError: UnauthorizedException for a rule that is not there, and as :meth:`Rule.of`."""
        made = Rule.of(name, payload, self.get(name).created_at)
        self.delete(name)
        return self._add(made)

    def _add(self, rule: Rule) -> Rule:
        self.rules[rule.name] = rule
        if rule.statement.topic_filter:
            self._tree.add(rule.statement.topic_filter, rule.name, rule)
        return rule

    def get(self, name: str) -> Rule:
        """:raises AwsError: UnauthorizedException, as IoT Core says of a rule that is not there."""
        found = self.rules.get(name)
        if found is None:
            arn = f"arn:aws:iot:{self.region}:{self.account_id}:rule/{name}"
            raise AwsError("UnauthorizedException", f"Access to topic rule '{arn}' was denied", 401)
        return found

    def delete(self, name: str) -> None:
        """Nothing happens when there is none."""
        rule = self.rules.pop(name, None)
        if rule is not None and rule.statement.topic_filter:
            self._tree.remove(rule.statement.topic_filter, name)

    def topic_filters(self) -> Iterator[str]:
        """What rules listen to."""
        return (rule.statement.topic_filter for rule in self.rules.values() if rule.statement.topic_filter)

    # -- messages --------------------------------------------------------------------------------------

    def handle(self, message: Message, now: float) -> None:
        """Run every rule that ``message`` matches. ``message.topic`` as it was published."""
        direct = basic_ingest(message.topic)
        if direct is not None:
            name, rest = direct
            rule = self.rules.get(name)
            if rule is None:
                self._count("RuleNotFound", (("RuleName", name),), now)
                return
            inner = Message(rest, message.payload, message.client_id, message.timestamp_ms, message.qos)
            self._run(rule, Context(inner), now)
            return
        found = self._tree.match(message.topic)
        if found:
            context = Context(message)
            for rule in found:
                self._run(rule, context, now)

    def _run(self, rule: Rule, context: Context, now: float) -> None:
        if rule.is_disabled:
            return
        if not self._evaluations.take(1.0, now) and self._settings.enforced:
            self._count("RuleExecutionThrottled", rule.dimensions, now)
            return
        self._count("TopicMatch", rule.dimensions, now)
        try:
            payload = rule.statement.evaluate(context)
        except NotJsonError:
            self._count("ParseError", rule.dimensions, now)
            return
        if payload is None:
            return
        self._count("RulesExecuted", (), now)
        run = _Run(rule, context, len(rule.actions))
        for action in rule.actions:
            self._act(run, action, payload, now, 1)

    def _act(self, run: _Run, action: Action, payload: bytes, now: float, attempt: int) -> None:
        def done(failure: Failure | None) -> None:
            self._done(run, action, payload, failure, attempt)

        self._perform(action, run.context, payload, now, done)

    def _done(self, run: _Run, action: Action, payload: bytes, failure: Failure | None, attempt: int) -> None:
        settings = self._settings
        if failure is not None and failure.is_retryable and attempt < settings.iot_action_attempts:
            pause_s = settings.iot_action_retry_seconds * 2 ** (attempt - 1) * (0.5 + random.random())
            self._later(pause_s, lambda: self._act(run, action, payload, self._clock(), attempt + 1))
            return
        now = self._clock()
        dimensions = (*run.rule.dimensions, ("ActionType", action.kind))
        self._count("Failure" if failure is not None else "Success", dimensions, now)
        run.left -= 1
        if failure is not None:
            run.failures.append(
                {
                    "failedAction": f"{action.kind}Action",
                    "failedResource": action.resource,
                    "errorMessage": str(failure),
                }
            )
        if not run.left and run.failures and run.rule.error_action is not None:
            self._tell(run, run.rule.error_action, now)

    def _perform(
        self, action: Action, context: Context, payload: bytes, now: float, done: Callable[[Failure | None], None]
    ) -> None:
        match action:
            case KinesisAction():
                key = action.partition_key(context)
                if not 1 <= len(key) <= PARTITION_KEY_MAX_CHARACTERS:
                    told = (
                        f"the partition key has {len(key)} characters; 1 to {PARTITION_KEY_MAX_CHARACTERS} are allowed"
                    )
                    done(Failure("ValidationException", told))
                    return
                done(self._outlets.put_record(self.region, action.stream(context), payload, key, now))
            case RepublishAction():
                done(self._republish(action, context, payload, now))
            case S3Action():
                bucket, key = action.bucket(context), action.key(context)
                self._outlets.put_object(self.region, bucket, key, payload, action.canned_acl, done)

    def _republish(self, action: RepublishAction, context: Context, payload: bytes, now: float) -> Failure | None:
        before, topic = context.message, action.topic(context)
        problem = action.problem_with(topic, payload)
        if problem is not None:
            return Failure("InvalidRequestException", problem)
        if before.depth >= REPUBLISH_MAX_DEPTH:
            told = f"the message was republished {before.depth} times: rules feed one another"
            return Failure("InvalidRequestException", told)
        self._outlets.republish(
            Message(topic, payload, before.client_id, int(now * 1000), action.qos, before.principal, before.depth + 1),
            now,
        )
        return None

    def _tell(self, run: _Run, action: Action, now: float) -> None:
        """Run the error action, with AWS's payload. It gets the same attempts as any other."""
        context, name = run.context, run.rule.name
        body = orjson.dumps(
            {
                "ruleName": name,
                "topic": context.message.topic,
                "cloudwatchTraceId": context.trace_id,
                "clientId": context.message.client_id or "N/A",
                "base64OriginalPayload": base64.b64encode(context.message.payload).decode(),
                "failures": run.failures,
            }
        )
        self._try_error_action(run, action, body, now, 1)

    def _try_error_action(self, run: _Run, action: Action, body: bytes, now: float, attempt: int) -> None:
        settings = self._settings

        def done(failure: Failure | None) -> None:
            if failure is not None and failure.is_retryable and attempt < settings.iot_action_attempts:
                pause_s = settings.iot_action_retry_seconds * 2 ** (attempt - 1)
                self._later(pause_s, lambda: self._try_error_action(run, action, body, self._clock(), attempt + 1))
                return
            name = "ErrorActionSuccess" if failure is None else "ErrorActionFailure"
            self._count(name, (*run.rule.dimensions, ("ActionType", action.kind)), self._clock())

        self._perform(action, run.context, body, now, done)

    def _count(self, name: str, dimensions: Dimensions, now: float) -> None:
        self._metrics.record(NAMESPACE, name, dimensions, 1, now)
