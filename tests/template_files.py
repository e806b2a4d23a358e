"""Templates for tests: write a text, load it, and find the line that an error must name."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from simulator.deployment import Deployment, TemplateError, load_deployment

SAM = "Transform: AWS::Serverless-2016-10-31\n"
STREAM = """
Resources:
  Stream:
    Type: AWS::Kinesis::Stream
    Properties:
      ShardCount: 1
"""
FUNCTION = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Stream: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: 1}}
  Work:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
      Runtime: python3.12
"""
EVENT = (
    FUNCTION
    + """\
      Events:
        Telemetry:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Stream.Arn
            StartingPosition: LATEST
"""
)
MARK = "#<<"


def write(folder: Path, text: str, name: str = "t.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load(folder: Path, text: str, **arguments: Any) -> Deployment:
    return load_deployment(write(folder, text), **arguments)


def fails(folder: Path, text: str, says: str, **arguments: Any) -> TemplateError:
    """Loading ``text`` fails at the line marked ``#<<`` (or at no line), in one line of words that has ``says``."""
    path = write(folder, text)
    lines = path.read_text(encoding="utf-8").splitlines()
    marked = [number for number, line in enumerate(lines, 1) if MARK in line]
    with pytest.raises(TemplateError) as caught:
        load_deployment(path, **arguments)
    error = caught.value
    assert says in str(error)
    assert "\n" not in str(error)
    assert error.file == path
    if marked:
        assert error.line == marked[0], str(error)
        assert str(error).startswith(f"{path}:{marked[0]}: ")
    return error
