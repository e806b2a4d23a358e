"""What building a resource needs of the rest of the template."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from simulator.template.errors import TemplateError
from simulator.template.intrinsics import Resolver
from simulator.template.names import Names
from simulator.template.nodes import MapNode
from simulator.template.properties import Properties
from simulator.template.specs import Ignored
from simulator.template.support import IGNORED, UNDERSTOOD


@dataclass(slots=True)
class Context:
    """One template while it is read; ``ignored`` grows on the way."""

    file: Path
    resolver: Resolver
    names: Names
    globals: MapNode
    ignored: list[Ignored] = field(default_factory=list)

    def error(self, message: str, line: int, advice: str = "") -> TemplateError:
        return TemplateError(message, self.file, line, advice)

    def ignore(self, logical_id: str, kind: str, line: int, reason: str, member: str = "") -> None:
        self.ignored.append(Ignored(logical_id, kind, line, reason, member))

    def take(
        self,
        logical_id: str,
        kind: str,
        raw: MapNode,
        understood: tuple[str, ...] | None = None,
        member: str = "",
    ) -> Properties:
        """``raw`` resolved, without what is ignored. ``understood`` defaults to the type's.

        :raises TemplateError: a property that is neither understood nor ignored, and whatever resolving raises.
        """
        known, ignored = understood or UNDERSTOOD[kind], IGNORED[kind]
        what = f"{logical_id} {member}" if member else logical_id
        for key in raw:
            if key.startswith("Fn::"):
                break  # the resolver has the words for it
            if key in ignored:
                path = f"{member}.{key}" if member else key
                self.ignore(logical_id, kind, raw.line_of(key), ignored[key], path)
            elif key not in known:
                raise self.error(
                    f"{what}: the property {key} of {kind} is not supported",
                    raw.line_of(key),
                    f"remove it; understood are {', '.join(known)}",
                )
        resolved = self.resolver.resolve(raw.without(tuple(ignored)))
        if not isinstance(resolved, MapNode):
            raise self.error(f"{what}: Properties must be a mapping", raw.line)
        return Properties(self.file, kind, what, resolved)
