"""What can be wrong with a deployment's description.

::

    DeploymentError         the command cannot go on (exit code 2)
    +-- TemplateError       something in the template, with file and line
    +-- ConfigError         samconfig.toml, a config environment or a parameter override
"""

from __future__ import annotations

from pathlib import Path


class DeploymentError(Exception):
    """The template or its settings cannot be used. The text is one line and says what to do."""


class ConfigError(DeploymentError):
    """A problem outside the template: samconfig.toml, ``--config-env``, ``--set``."""


class TemplateError(DeploymentError):
    """A problem in the template, with ``file`` and ``line`` (1-based, 0 when no line is to blame)."""

    def __init__(self, message: str, file: Path, line: int, advice: str = "") -> None:
        self.file = file
        self.line = line
        self.advice = advice
        where = f"{file}:{line}" if line else str(file)
        # A template's own text may have line breaks; an error is one line.
        told = " ".join(f"{message}{f'; {advice}' if advice else ''}".split())
        super().__init__(f"{where}: {told}")
