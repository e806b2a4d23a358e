"""Trying a function's cold start before anything depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from consumers.runtime.config import FunctionConfig
from consumers.runtime.sandbox import Sandbox, SandboxExitError, SandboxTimeoutError


def cold_start_problem(config: FunctionConfig, *, log: Callable[[str], None] | None = None) -> str | None:
    """What keeps ``config``'s handler from being loaded, in Lambda's words; None when it loads.

    Runs a real cold start, in a process of its own that ends with it. ``log`` gets the lines that it prints.
    """
    sandbox = Sandbox(config, "cold-start", log)
    try:
        failure = sandbox.initialise(time.monotonic() + config.init_timeout_s)
    except SandboxTimeoutError:
        return f"Init phase timed out after {config.init_timeout_s:.2f} seconds"
    except SandboxExitError as error:
        return str(error)
    finally:
        sandbox.close()
    return None if failure is None else f"{failure['errorType']}: {failure['errorMessage']}"
