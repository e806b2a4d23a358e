"""A whole template: its sections, its resources in their order, and what they refer to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from simulator.template import delivery, event_sources, functions, iot, scaling, stores
from simulator.template.context import Context
from simulator.template.errors import TemplateError
from simulator.template.intrinsics import NO_VALUE, Resolver, is_intrinsic
from simulator.template.names import Names, Place
from simulator.template.nodes import ListNode, MapNode
from simulator.template.parameters import Parameter
from simulator.template.properties import Properties
from simulator.template.specs import Deployment, EventSourceSpec, FunctionSpec, Ignored
from simulator.template.support import (
    BUCKET,
    CONSUMER,
    DELIVERY_STREAM,
    FUNCTION,
    MAPPING,
    QUEUE,
    SAM_FUNCTION,
    SCALABLE_TARGET,
    SCALING_POLICY,
    SIMPLE_TABLE,
    STREAM,
    TABLE,
    TOPIC,
    TOPIC_RULE,
    UNDERSTOOD,
    ignored_type,
)

_SECTIONS: Final = ("Parameters", "Mappings", "Conditions", "Globals", "Resources", "Outputs", "Rules")
_ALSO: Final = ("AWSTemplateFormatVersion", "Transform", "Description", "Metadata", "Hooks")
_RESOURCE_MEMBERS: Final = (
    "Type",
    "Properties",
    "Condition",
    "DependsOn",
    "Metadata",
    "DeletionPolicy",
    "UpdateReplacePolicy",
    "CreationPolicy",
    "UpdatePolicy",
    "Connectors",
    "IgnoreGlobals",
)
_GLOBALS: Final = ("Function", "Api", "HttpApi", "SimpleTable", "StateMachine", "LayerVersion", "WebSocketApi")
_SAM: Final = "AWS::Serverless-2016-10-31"
_TRANSFORMS: Final = (_SAM, "AWS::LanguageExtensions")

_STORES: Final[Mapping[str, Callable[[str, Properties, Names], Any]]] = {
    STREAM: stores.stream,
    CONSUMER: stores.consumer,
    TABLE: stores.table,
    SIMPLE_TABLE: stores.simple_table,
    BUCKET: stores.bucket,
    QUEUE: stores.queue,
    TOPIC: stores.topic,
    TOPIC_RULE: iot.topic_rule,
    SCALABLE_TARGET: scaling.target,
    SCALING_POLICY: scaling.policy,
}


def sections(tree: MapNode, path: Path) -> dict[str, MapNode]:
    """The sections of a template, each there and a mapping. :raises TemplateError: unknown or malformed ones."""
    found = {}
    for name in tree:
        if name.startswith("Fn::"):
            raise TemplateError(f"the intrinsic function {name} is not supported", path, tree.line_of(name))
        if name not in (*_SECTIONS, *_ALSO):
            near = difflib.get_close_matches(name, (*_SECTIONS, *_ALSO), 1)
            advice = f"did you mean {near[0]}?" if near else f"sections are {', '.join((*_SECTIONS, *_ALSO))}"
            raise TemplateError(f"a template has no section {name}", path, tree.line_of(name), advice)
    for name in _SECTIONS:
        section = tree.get(name, MapNode(tree.line))
        if not isinstance(section, MapNode) or (name == "Resources" and not section):
            problem = f"{name} must be a mapping"
            if name == "Resources":
                problem = f"this is not a SAM or CloudFormation template: {problem} that is not empty"
            raise TemplateError(problem, path, tree.line_of(name))
        found[name] = section
    given = tree.get("Transform", ListNode(tree.line))
    transforms = given if isinstance(given, list) else [given]
    for one in transforms:
        if one not in _TRANSFORMS:
            raise TemplateError(f"the transform {one} is not supported", path, tree.line_of("Transform"), f"use {_SAM}")
    for logical_id, resource in found["Resources"].items():
        kind = resource.get("Type") if isinstance(resource, MapNode) else None
        if isinstance(kind, str) and kind.startswith("AWS::Serverless::") and _SAM not in transforms:
            raise TemplateError(
                f"{logical_id}: the type {kind} needs SAM", path, resource.line_of("Type"), f"add Transform: {_SAM}"
            )
    return found


def build(
    parts: Mapping[str, MapNode],
    path: Path,
    config_env: str,
    parameters: Mapping[str, Parameter],
    place: Place,
    *,
    outside_streams: bool = False,
) -> Deployment:
    """The deployment that a template's sections describe.

    ``outside_streams``: event sources may be streams that the template does not declare.

    :raises TemplateError: with the line to blame.
    """
    return _Builder(parts, path, config_env, parameters, place, outside_streams).build()


class _Builder:
    def __init__(
        self,
        parts: Mapping[str, MapNode],
        path: Path,
        config_env: str,
        parameters: Mapping[str, Parameter],
        place: Place,
        outside_streams: bool,
    ) -> None:
        self.outside_streams = outside_streams
        self.parts, self.path, self.config_env, self.parameters, self.place = (
            parts,
            path,
            config_env,
            parameters,
            place,
        )
        self.resources = parts["Resources"]
        values = {name: one.value for name, one in parameters.items()} | place.pseudo_parameters()
        resolver = Resolver(path, values, parts["Mappings"], parts["Conditions"], self._resource_value)
        self.names = Names(path, self.resources, place, resolver)
        self.context = Context(path, resolver, self.names, parts["Globals"])
        self.resolver = resolver
        self.made: dict[str, list[Any]] = {kind: [] for kind in UNDERSTOOD}
        self.mappings: list[tuple[str, EventSourceSpec]] = []
        self._building = ""
        self._refers: dict[str, dict[str, int]] = {}

    def error(self, message: str, line: int, advice: str = "") -> TemplateError:
        return TemplateError(message, self.path, line, advice)

    def build(self) -> Deployment:
        self._check_globals()
        if self.parts["Rules"]:
            self.context.ignore("Rules", "section", self.parts["Rules"].line, "its assertions are not checked here")
        for name in self.parts["Conditions"]:
            self.resolver.condition(name, self.parts["Conditions"].line_of(name))
        for logical_id in self.resources:
            self._building = logical_id
            self._resource(logical_id)
        self._building = ""
        self._check_circles()
        built = tuple(self._with_mappings([*self.made[SAM_FUNCTION], *self.made[FUNCTION]]))
        self._check_sources(built)
        made = self.made
        lost = scaling.without_target(made[SCALABLE_TARGET], made[SCALING_POLICY])
        if lost is not None:
            raise self.error(
                f"{lost.logical_id}: no scalable target of this template is {lost.dimension} of {lost.resource_id}",
                self.resources.line_of(lost.logical_id),
                "declare one, and use !Ref TARGET as ScalingTargetId",
            )
        self._check_names(
            (*made[STREAM],),
            (*made[TABLE], *made[SIMPLE_TABLE]),
            built,
            (*made[BUCKET],),
            (*made[QUEUE],),
            (*made[TOPIC],),
            (*made[TOPIC_RULE],),
            (*made[DELIVERY_STREAM],),
        )
        return Deployment(
            path=self.path,
            config_env=self.config_env,
            region=self.place.region,
            account_id=self.place.account_id,
            parameters={name: one.value for name, one in self.parameters.items()},
            origins={name: one.origin for name, one in self.parameters.items()},
            streams=tuple(made[STREAM]),
            tables=(*made[TABLE], *made[SIMPLE_TABLE]),
            functions=built,
            buckets=tuple(made[BUCKET]),
            queues=tuple(made[QUEUE]),
            topics=tuple(made[TOPIC]),
            topic_rules=tuple(made[TOPIC_RULE]),
            consumers=tuple(made[CONSUMER]),
            scalable_targets=tuple(made[SCALABLE_TARGET]),
            scaling_policies=tuple(made[SCALING_POLICY]),
            delivery_streams=tuple(made[DELIVERY_STREAM]),
            ignored=tuple(sorted(self.context.ignored, key=_line)),
            outputs=self._outputs(),
            stack_name=self.place.stack_name,
            no_echo=frozenset(name for name, one in self.parameters.items() if one.no_echo),
        )

    # -- one resource ----------------------------------------------------------------------------------

    def _resource(self, logical_id: str) -> None:
        kind, line = self.names.kind(logical_id), self.resources.line_of(logical_id)
        resource: MapNode = self.resources[logical_id]
        for member in resource:
            if member.startswith("Fn::"):
                raise self.error(f"the intrinsic function {member} is not supported", resource.line_of(member))
            if member not in _RESOURCE_MEMBERS:
                near = difflib.get_close_matches(member, _RESOURCE_MEMBERS, 1)
                advice = f"did you mean {near[0]}?" if near else f"members are {', '.join(_RESOURCE_MEMBERS)}"
                raise self.error(f"{logical_id}: a resource has no {member}", resource.line_of(member), advice)
        self._check_dependencies(logical_id, resource)
        if not self._present(logical_id):
            return
        if (reason := ignored_type(kind)) is not None:
            self.context.ignore(logical_id, kind, line, reason)
            return
        if kind not in UNDERSTOOD:
            raise self.error(
                f"{logical_id}: the resource type {kind} is not supported",
                line,
                f"remove it, or use one of {', '.join(UNDERSTOOD)}",
            )
        raw = resource.get("Properties", MapNode(line))
        if not isinstance(raw, MapNode) or (is_intrinsic(raw) and "Fn::Transform" not in raw):
            raise self.error(f"{logical_id}: Properties must be a mapping", resource.line_of("Properties"))
        if kind == SAM_FUNCTION:
            self.made[kind].append(functions.sam_function(logical_id, raw, resource.get("IgnoreGlobals"), self.context))
        elif kind == FUNCTION:
            self.made[kind].append(functions.lambda_function(logical_id, raw, self.context))
        elif kind == MAPPING:
            if found := event_sources.mapping(logical_id, self.context.take(logical_id, kind, raw), self.context):
                self.mappings.append(found)
        elif kind == DELIVERY_STREAM:
            self.made[kind].append(delivery.delivery_stream(logical_id, raw, self.context))
        else:
            properties = self.context.take(logical_id, kind, raw)
            self.made[kind].append(_STORES[kind](logical_id, properties, self.names))

    def _present(self, logical_id: str) -> bool:
        resource = self.resources[logical_id]
        name = resource.get("Condition") if isinstance(resource, MapNode) else None
        if name is None:
            return True
        line = resource.line_of("Condition")
        if not isinstance(name, str):
            raise self.error(f"{logical_id}: Condition takes the name of a condition", line)
        return self.resolver.condition(name, line)

    def _resource_value(self, logical_id: str, attribute: str | None, line: int) -> Any:
        if self._building:
            self._refers.setdefault(self._building, {})[logical_id] = line
        if logical_id in self.resources and not self._present(logical_id):
            condition = self.resources[logical_id]["Condition"]
            raise self.error(
                f"{logical_id} is not there, its condition {condition} is false", line, f"use !If with {condition}"
            )
        return self.names.value(logical_id, attribute, line)

    # -- the whole -------------------------------------------------------------------------------------

    def _check_globals(self) -> None:
        shared = self.parts["Globals"]
        for name in shared:
            if name not in _GLOBALS:
                raise self.error(
                    f"Globals has no section {name}", shared.line_of(name), f"sections are {', '.join(_GLOBALS)}"
                )
            if name != "Function":
                self.context.ignore("Globals", "section", shared.line_of(name), "it carries no behaviour here", name)

    def _check_dependencies(self, logical_id: str, resource: MapNode) -> None:
        given, line = resource.get("DependsOn", ListNode(0)), resource.line_of("DependsOn")
        for name in given if isinstance(given, list) else [given]:
            if not isinstance(name, str) or name not in self.resources:
                raise self.error(f"{logical_id}: DependsOn names no resource: {name}", line, "name one of Resources")
            self._refers.setdefault(logical_id, {})[name] = line

    def _check_circles(self) -> None:
        """CloudFormation creates resources one after the other, so none may need itself."""
        done: set[str] = set()
        for start in self._refers:
            way: list[str] = []
            todo = [iter([start])]
            while todo:
                name = next(todo[-1], None)
                if name is None:
                    todo.pop()
                    if way:
                        done.add(way.pop())
                elif name in way:
                    circle = " -> ".join([*way[way.index(name) :], name])
                    raise self.error(
                        f"resources refer to each other in a circle: {circle}",
                        self._refers[way[-1]][name],
                        "remove one of the references, or name a resource and write its name",
                    )
                elif name not in done:
                    way.append(name)
                    todo.append(iter(self._refers.get(name, {})))

    def _with_mappings(self, built: list[FunctionSpec]) -> list[FunctionSpec]:
        by_name = {one.name: one for one in built}
        for function, source in self.mappings:
            if function not in by_name:
                raise self.error(
                    f"{source.name}: there is no function {function} in this template",
                    self.resources.line_of(source.name),
                    f"there are {', '.join(by_name) or 'none'}",
                )
            one = by_name[function]
            by_name[function] = replace(one, event_sources=(*one.event_sources, source))
        return [by_name[one.name] for one in built]

    def _check_sources(self, built: tuple[FunctionSpec, ...]) -> None:
        streams = {one.arn for one in (*self.made[STREAM], *self.made[CONSUMER])}
        streams |= {f"{one.arn}/stream/latest" for one in self.made[TABLE] if one.stream_view_type}
        for consumer in self.made[CONSUMER]:
            if consumer.stream_arn not in streams and not self.outside_streams:
                raise self.error(
                    f"{consumer.logical_id}: {consumer.stream_arn} is not a stream of this template",
                    self.resources.line_of(consumer.logical_id),
                    "declare the stream and use !GetAtt STREAM.Arn",
                )
        for one in self.made[DELIVERY_STREAM]:
            known = {*streams, one.stream_arn} if self.outside_streams else streams
            if problem := delivery.missing(one, known, [function.arn for function in built]):
                line = self.resources.line_of(one.logical_id)
                raise self.error(f"{one.logical_id}: {problem}", line, "declare it and use !GetAtt NAME.Arn")
        for function in built:
            arns = [source.source_arn for source in function.event_sources]
            line = self.resources.line_of(function.logical_id)
            for arn in arns:
                if arn not in streams and not self.outside_streams:
                    raise self.error(
                        f"{function.logical_id}: its event source {arn} is not a stream of this template",
                        line,
                        "declare the stream and use !GetAtt STREAM.Arn, or TABLE.StreamArn",
                    )
                if arns.count(arn) > 1:
                    raise self.error(
                        f"{function.logical_id} has the event source {arn} twice", line, "remove one of them"
                    )

    def _check_names(self, *groups: tuple[Any, ...]) -> None:
        for group in groups:
            owner: dict[str, str] = {}
            for one in group:
                if one.name in owner:
                    raise self.error(
                        f"{owner[one.name]} and {one.logical_id} are both named {one.name}",
                        self.resources.line_of(one.logical_id),
                        "give one of them another name",
                    )
                owner[one.name] = one.logical_id

    def _outputs(self) -> dict[str, Any]:
        found = {}
        for name, output in self.parts["Outputs"].items():
            line = self.parts["Outputs"].line_of(name)
            if not isinstance(output, MapNode) or "Value" not in output:
                raise self.error(f"the output {name} has no Value", line)
            condition = output.get("Condition")
            if condition is not None and not self.resolver.condition(str(condition), output.line_of("Condition")):
                continue
            value = self.resolver.resolve(output["Value"], output.line_of("Value"))
            if value is not NO_VALUE:
                found[name] = value
        return found


def _line(ignored: Ignored) -> int:
    return ignored.line
