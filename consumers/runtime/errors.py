"""What the runtime raises.

::

    RuntimeFault
    ├── ConfigurationError   a function or mapping that cannot work; nothing was started
    └── CheckpointError      a checkpoint file that cannot be read or written; carries its path

Failing functions, throttles and lost connections are not exceptions: they are retried and told by
:meth:`consumers.runtime.Runtime.statistics`.
"""

from __future__ import annotations

from pathlib import Path


class RuntimeFault(Exception):  # noqa: N818 - the tree's root, never raised itself
    """Anything this package raises."""


class ConfigurationError(RuntimeFault):
    """A setting is out of its range or names something that does not exist."""


class CheckpointError(RuntimeFault):
    """A checkpoint file could not be read or written."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        super().__init__(f"{path}: {problem}. {advice}")
        self.path = path
