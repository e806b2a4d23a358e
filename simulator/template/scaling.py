"""Application Auto Scaling of tables: scalable targets and their target-tracking policies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simulator.template.names import Names
from simulator.template.properties import Properties
from simulator.template.specs import ScalableTargetSpec, ScalingPolicySpec

_RESOURCE = re.compile(r"table/[a-zA-Z0-9_.-]{3,255}(/index/[a-zA-Z0-9_.-]{3,255})?")
_DIMENSION = re.compile(r"dynamodb:(table|index):(Read|Write)CapacityUnits")
_MAX_UNITS = 40_000
_TARGET_PERCENT = (20, 90)
_COOLDOWN_S = 604_800


def target(logical_id: str, properties: Properties, names: Names) -> ScalableTargetSpec:
    """AWS::ApplicationAutoScaling::ScalableTarget."""
    resource, dimension = _what(properties)
    least = properties.whole("MinCapacity", 1, _MAX_UNITS)
    most = properties.whole("MaxCapacity", 1, _MAX_UNITS)
    if most < least:
        raise properties.error("MaxCapacity", f"MaxCapacity must be at least MinCapacity, {least}")
    return ScalableTargetSpec(logical_id, resource, dimension, least, most)


def policy(logical_id: str, properties: Properties, names: Names) -> ScalingPolicySpec:
    """AWS::ApplicationAutoScaling::ScalingPolicy."""
    properties.one_of("PolicyType", ("TargetTrackingScaling",), "TargetTrackingScaling")
    if "ScalingTargetId" in properties:
        resource, _, rest = properties.text("ScalingTargetId").partition("|")
        dimension = rest.partition("|")[0]
        if not _RESOURCE.fullmatch(resource) or not _DIMENSION.fullmatch(dimension):
            raise properties.error("ScalingTargetId", "ScalingTargetId must be the Ref of a scalable target of a table")
    else:
        resource, dimension = _what(properties)
    tracking = properties.part(
        "TargetTrackingScalingPolicyConfiguration",
        ("TargetValue", "PredefinedMetricSpecification", "ScaleInCooldown", "ScaleOutCooldown", "DisableScaleIn"),
    )
    metric = tracking.part("PredefinedMetricSpecification", ("PredefinedMetricType",))
    wanted = f"DynamoDB{'Read' if 'Read' in dimension else 'Write'}CapacityUtilization"
    metric.one_of("PredefinedMetricType", (wanted,))
    if tracking.flag("DisableScaleIn", False):
        raise tracking.error("DisableScaleIn", "DisableScaleIn is not supported", "leave it out")
    return ScalingPolicySpec(
        logical_id,
        properties.text("PolicyName"),
        resource,
        dimension,
        tracking.whole("TargetValue", *_TARGET_PERCENT),
        tracking.whole("ScaleInCooldown", 0, _COOLDOWN_S, 0),
        tracking.whole("ScaleOutCooldown", 0, _COOLDOWN_S, 0),
    )


def _what(properties: Properties) -> tuple[str, str]:
    """ResourceId and ScalableDimension, of DynamoDB."""
    properties.one_of("ServiceNamespace", ("dynamodb",))
    resource, dimension = properties.text("ResourceId"), properties.text("ScalableDimension")
    if not _RESOURCE.fullmatch(resource):
        raise properties.error("ResourceId", f"{resource!r} is not table/NAME or table/NAME/index/INDEX")
    if not _DIMENSION.fullmatch(dimension) or ("/index/" in resource) != (":index:" in dimension):
        raise properties.error("ScalableDimension", f"{dimension!r} is not a dimension of {resource}")
    return resource, dimension


def without_target(
    targets: Sequence[ScalableTargetSpec], policies: Sequence[ScalingPolicySpec]
) -> ScalingPolicySpec | None:
    """A policy whose scalable target is not in the template."""
    known = {(one.resource_id, one.dimension) for one in targets}
    return next((one for one in policies if (one.resource_id, one.dimension) not in known), None)
