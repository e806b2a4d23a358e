"""The error a simulated service answers with."""

from __future__ import annotations


class AwsError(Exception):
    """An error in AWS's words: ``code`` is the short name of the exception, ``status`` the HTTP status."""

    def __init__(self, code: str, message: str | None, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
