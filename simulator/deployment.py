"""The backend that a template describes, as plain data.

``template.yaml`` and the overrides on top of it become a :class:`Deployment`; the cloud provisions from it, the
consumer runtime takes its event sources from it, the report names its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from simulator.template import nodes, resources
from simulator.template.errors import ConfigError, DeploymentError, TemplateError
from simulator.template.names import Place
from simulator.template.parameters import resolve_parameters
from simulator.template.samconfig import read_environment
from simulator.template.specs import (
    BucketSpec,
    ConsumerSpec,
    DeliveryStreamSpec,
    Deployment,
    EventSourceSpec,
    FunctionSpec,
    Ignored,
    IndexSpec,
    QueueSpec,
    StreamSpec,
    TableSpec,
    TopicRuleSpec,
    TopicSpec,
    TransformSpec,
)

__all__ = [
    "BucketSpec",
    "ConfigError",
    "ConsumerSpec",
    "DeliveryStreamSpec",
    "Deployment",
    "DeploymentError",
    "EventSourceSpec",
    "FunctionSpec",
    "Ignored",
    "IndexSpec",
    "QueueSpec",
    "StreamSpec",
    "TableSpec",
    "TemplateError",
    "TopicRuleSpec",
    "TopicSpec",
    "TransformSpec",
    "load_deployment",
    "to_dict",
]

ACCOUNT_ID = "123456789012"
DEFAULT_REGION = "us-east-1"
STACK_NAME = "alleycat"
REPOSITORY = Path(__file__).resolve().parents[1]


def load_deployment(
    template: Path | None = None,
    config_env: str = "default",
    overrides: Mapping[str, str] | None = None,
    samconfig: Path | None = None,
    region: str = DEFAULT_REGION,
    account_id: str = ACCOUNT_ID,
    *,
    outside_streams: bool = False,
    physical_names: Mapping[str, str] | None = None,
) -> Deployment:
    """Read a template with the sizes of ``config_env`` and ``overrides`` on top.

    ``template=None`` is ``template.yaml`` of the current directory, or the project's own. ``samconfig=None`` is
    ``samconfig.toml`` beside the template, which need not be there for the environment ``default``. With
    ``outside_streams``, functions may be fed by streams that other templates declare. ``physical_names``
    (by logical id) are what a deployed stack calls the resources that the template gives no name.

    :raises DeploymentError: with one line that says what is wrong, where, and what to do.
    """
    here = Path("template.yaml")
    path = template or (here if here.is_file() else REPOSITORY / "template.yaml")
    tree = nodes.load(path)
    sections = resources.sections(tree, path)
    environment = read_environment(
        samconfig or path.parent / "samconfig.toml", config_env, required=samconfig is not None
    )
    parameters = resolve_parameters(sections["Parameters"], path, environment, overrides or {})
    place = Place(region, account_id, environment.stack_name or STACK_NAME, physical_names or {})
    return resources.build(sections, path, config_env, parameters, place, outside_streams=outside_streams)


def to_dict(value: Any) -> Any:
    """A deployment, or a part of one, as JSON can hold it. What is NoEcho is not in it."""
    if isinstance(value, Deployment):
        shown = {one.name: getattr(value, one.name) for one in fields(value)}
        return to_dict(shown | {"parameters": value.shown_parameters()})
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_dict(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(one) for key, one in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [to_dict(one) for one in (sorted(value) if isinstance(value, frozenset) else value)]
    return str(value) if isinstance(value, Path) else value
