"""Functions in real processes: cold and warm, in time and out of time, alive and dead."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers.runtime import ConfigurationError, Function, FunctionConfig, InvokeResult

HERE = Path(__file__).with_name("handlers_for_tests")
Make = Callable[..., Function]


def config(handler: str = "basic.handler", **settings: Any) -> FunctionConfig:
    defaults: dict[str, Any] = {"name": "Tested", "handler": handler, "code_path": HERE, "timeout_s": 20.0}
    return FunctionConfig(**defaults | settings)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Function] = []

    def build(handler: str = "basic.handler", log: Any = None, **settings: Any) -> Function:
        made.append(Function(config(handler, **settings), log=log))
        return made[-1]

    yield build
    for function in made:
        function.kill()
        function.close()


def payload(result: InvokeResult) -> Any:
    assert result.error_type is None, result
    assert result.payload is not None
    return json.loads(result.payload)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


# -- the life of an environment ------------------------------------------------------------------------


def test_the_first_invocation_is_a_cold_start_and_the_next_is_warm(make: Make) -> None:
    function = make()
    first, second = function.invoke({}), function.invoke(b"{}")
    assert payload(first)["invocations"] == 1
    assert payload(second) == {"pid": payload(first)["pid"], "invocations": 2}
    assert first.init_ms is not None
    assert first.init_ms > first.duration_ms
    assert second.init_ms is None
    assert second.duration_ms > 0


def test_invocations_at_the_same_time_have_an_environment_each(make: Make) -> None:
    function = make()
    results: list[InvokeResult] = []
    threads = [
        threading.Thread(target=lambda: results.append(function.invoke({"do": "sleep", "s": 0.3}))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({payload(result)["pid"] for result in results}) == 2
    assert function.concurrency == 0


def test_reserved_concurrency_refuses_what_is_beyond_it(make: Make) -> None:
    function = make(reserved_concurrency=1)
    thread = threading.Thread(target=function.invoke, args=({"do": "sleep", "s": 0.5},))
    thread.start()
    while function.concurrency == 0:
        time.sleep(0.005)
    refused = function.invoke({})
    thread.join()
    assert refused.is_throttled
    assert refused.error_type == "TooManyRequestsException"
    assert payload(function.invoke({}))["invocations"] == 2
    assert make(reserved_concurrency=0).invoke({}).is_throttled


def test_an_environment_that_died_while_idle_is_nobodys_failure(make: Make) -> None:
    function = make()
    pid = payload(function.invoke({}))["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    again = function.invoke({})
    assert payload(again)["invocations"] == 1
    assert again.init_ms is not None


def test_the_context_is_lambdas(make: Make) -> None:
    function = make(environment={"COLOUR": "yellow"}, memory_mb=256, region="eu-west-1", account_id="123456789012")
    result = function.invoke({"do": "context"})
    context = payload(result)
    assert 19_000 < context.pop("remaining_ms") <= 20_000
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", context.pop("log_stream"))
    assert context == {
        "request_id": result.request_id,
        "name": "Tested",
        "version": "$LATEST",
        "memory": "256",
        "arn": "arn:aws:lambda:eu-west-1:123456789012:function:Tested",
        "log_group": "/aws/lambda/Tested",
        "environment": "yellow",
        "region": "eu-west-1",
        "cwd": str(HERE),
    }


def test_ctrl_c_is_the_parents_business(make: Make) -> None:
    function = make()
    pid = payload(function.invoke({}))["pid"]
    os.kill(pid, signal.SIGINT)
    assert payload(function.invoke({})) == {"pid": pid, "invocations": 2}


def test_environments_end_with_their_parent_even_in_the_middle_of_an_invocation() -> None:
    script = (
        "from consumers.runtime import Function, FunctionConfig; import pathlib, sys\n"
        f"c = FunctionConfig(name='T', handler='basic.handler', code_path=pathlib.Path({str(HERE)!r}), timeout_s=60)\n"
        "f = Function(c, log=lambda name, line: print(line, flush=True))\n"
        "print(f.invoke({}).payload.decode(), flush=True)\n"
        "f.invoke({'do': 'sleep', 's': 60})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = json.loads(parent.stdout.readline())["pid"]
        assert parent.stdout.readline() == "sleeping\n"
        parent.kill()
        parent.wait()
    wait_until_gone(pid)


def test_close_ends_the_idle_environments_and_refuses(make: Make) -> None:
    function = make()
    pid = payload(function.invoke({}))["pid"]
    function.close()
    assert not is_running(pid)
    assert function.invoke({}).error_type == "Alleycat.RuntimeStopped"


# -- how invocations fail ------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [{"do": "sleep", "s": 30}, {"do": "spin"}], ids=["asleep", "spinning"])
def test_timeout_kills_the_process_and_the_next_invocation_is_cold(make: Make, event: dict[str, Any]) -> None:
    function = make(timeout_s=0.5)
    pid = payload(function.invoke({}))["pid"]
    result = function.invoke(event)
    assert result.is_timed_out
    assert result.payload is None
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z {result.request_id} Task timed out after 0\.50 seconds",
        result.error_message,
    )
    assert 500 <= result.duration_ms < 5000
    assert not is_running(pid)
    again = function.invoke({})
    assert payload(again)["invocations"] == 1
    assert again.init_ms is not None


def test_timeout_takes_the_functions_own_children_along(make: Make) -> None:
    function = make(timeout_s=1.0)
    result = function.invoke({"do": "child", "s": 30})
    assert result.is_timed_out
    wait_until_gone(int(result.log_tail))


def test_an_exception_is_reported_and_the_environment_stays(make: Make) -> None:
    lines: list[tuple[str, str]] = []
    function = make(log=lambda name, line: lines.append((name, line)))
    pid = payload(function.invoke({}))["pid"]
    result = function.invoke({"do": "raise"})
    assert (result.error_type, result.error_message) == ("LookupError", "no such biker")
    assert not result.is_timed_out
    assert len(result.stack_trace) == 1
    assert re.match(r'  File ".*basic\.py", line \d+, in handler\n    raise LookupError', result.stack_trace[0])
    assert lines[0] == ("Tested", "about to fail")
    assert ("Tested", "[ERROR] LookupError: no such biker") in lines
    assert payload(function.invoke({}))["pid"] == pid


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"do": "exit", "status": 7}, "Runtime exited with error: exit status 7"),
        ({"do": "exit", "status": 0}, "Runtime exited without providing a reason"),
        ({"do": "segfault"}, "Runtime exited with error: signal: segmentation fault"),
        ({"do": "fork", "status": 7}, "Runtime exited with error: exit status 7"),
    ],
)
def test_a_crash_is_an_exit_error_and_the_next_invocation_is_cold(
    make: Make, event: dict[str, Any], message: str
) -> None:
    function = make()
    result = function.invoke(event)
    assert result.error_type == "Runtime.ExitError"
    assert result.error_message == f"RequestId: {result.request_id} Error: {message}"
    assert payload(function.invoke({}))["invocations"] == 1


@pytest.mark.parametrize(
    ("handler", "error_type", "message"),
    [
        ("absent.handler", "Runtime.ImportModuleError", "Unable to import module 'absent': No module named 'absent'"),
        (
            "broken_import.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'broken_import': No module named 'there_is_no_such_module'",
        ),
        ("basic.missing", "Runtime.HandlerNotFound", "Handler 'missing' missing on module 'basic'"),
        ("basic.not_callable", "Runtime.HandlerNotFound", "Handler 'not_callable' missing on module 'basic'"),
        ("broken_init.handler", "KeyError", "'TABLE_NAME'"),
    ],
)
def test_init_errors_say_what_lambda_says(make: Make, handler: str, error_type: str, message: str) -> None:
    result = make(handler).invoke({})
    assert (result.error_type, result.error_message) == (error_type, message)
    assert result.init_ms is not None
    assert error_type in result.log_tail


def test_init_has_its_own_limit(make: Make) -> None:
    result = make("slow_init.handler", init_timeout_s=0.5).invoke({})
    assert result.is_timed_out
    assert result.error_message.endswith("Init phase timed out after 0.50 seconds")


def test_init_does_not_count_towards_the_timeout(make: Make) -> None:
    # A cold start of a Python process takes longer than this Timeout.
    assert payload(make(timeout_s=0.01).invoke({"do": "echo"})) == {"do": "echo"}


def test_a_process_that_exits_at_import_is_an_exit_error(make: Make) -> None:
    result = make("exits_at_import.handler").invoke({})
    assert result.error_type == "Runtime.ExitError"
    assert result.error_message.endswith("exit status 3")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is limited where there is /proc")
@pytest.mark.parametrize("event", [{"s": 30}, {"s": 0}], ids=["while it runs", "though it freed it and answered"])
def test_more_memory_than_it_has_kills_a_function_and_the_next_invocation_is_cold(
    make: Make, event: dict[str, Any]
) -> None:
    lines: list[str] = []
    function = make(memory_mb=192, log=lambda name, line: lines.append(line))
    assert payload(function.invoke({"do": "allocate", "mb": 64})) == {}
    assert payload(function.invoke({}))["invocations"] == 2
    result = function.invoke({"do": "allocate", "mb": 256} | event)
    assert result.error_type == "Runtime.ExitError"
    assert result.error_message == f"RequestId: {result.request_id} Error: Runtime exited with error: signal: killed"
    assert re.fullmatch(r"Memory Size: 192 MB Max Memory Used: \d+ MB", lines[-1])
    assert lines[-1] in result.log_tail
    again = function.invoke({})
    assert payload(again)["invocations"] == 1
    assert again.init_ms is not None


def test_kill_ends_a_running_invocation(make: Make) -> None:
    function = make()
    results: list[InvokeResult] = []
    thread = threading.Thread(target=lambda: results.append(function.invoke({"do": "sleep", "s": 30})))
    thread.start()
    while function.concurrency == 0:
        time.sleep(0.005)
    function.kill()
    thread.join(5)
    assert results[0].error_type == "Alleycat.RuntimeStopped"


# -- payloads and logs ---------------------------------------------------------------------------------


def test_a_request_of_six_mebibytes_passes_and_a_byte_more_is_refused(make: Make) -> None:
    function = make()
    frame = len('{"do":"count","x":""}')
    largest = b'{"do":"count","x":"%b"}' % (b"x" * (6 * 1024 * 1024 - frame))
    assert payload(function.invoke(largest))["invocations"] == 1
    assert function.invoke(largest + b" ").error_type == "RequestEntityTooLargeException"


def test_a_response_beyond_six_megabytes_is_an_error(make: Make) -> None:
    function = make()
    assert len(payload(function.invoke({"do": "big", "bytes": 6_291_554}))) == 6_291_554
    result = function.invoke({"do": "big", "bytes": 6_291_555})
    assert result.error_type == "Function.ResponseSizeTooLarge"
    assert result.error_message == "Response payload size exceeded maximum allowed payload size (6291556 bytes)."


@pytest.mark.parametrize("what", ["set", "nan", "surrogate"])
def test_what_is_not_json_is_a_marshal_error(make: Make, what: str) -> None:
    result = make().invoke({"do": what})
    assert result.error_type == "Runtime.MarshalError"
    assert result.error_message.startswith("Unable to marshal response: ")


def test_decimals_become_numbers_as_in_lambda(make: Make) -> None:
    assert payload(make().invoke({"do": "decimal"})) == {"n": 1.5}


def test_a_flood_of_log_is_drained_and_its_tail_kept(make: Make) -> None:
    lines: list[str] = []
    function = make(log=lambda name, line: lines.append(line))
    result = function.invoke({"do": "print", "kib": 4096})
    assert payload(result) == {}
    assert lines.count("y" * 1023) == 4096
    assert result.log_tail == ("y" * 1023 + "\n") * 4


def test_a_background_thread_that_never_stops_printing_blocks_nobody(make: Make) -> None:
    function = make()
    payload(function.invoke({"do": "thread_noise"}))
    began = time.monotonic()
    assert payload(function.invoke({}))["invocations"] == 2
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"handler": "basic"}, "must be 'module.attribute'"),
        ({"timeout_s": 901}, "timeout_s must be in 0..900, got 901"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"memory_mb": 64}, "memory_mb must be in 128..10240, got 64"),
        ({"code_path": Path("/nonexistent")}, "code_path /nonexistent is not a directory"),
        ({"reserved_concurrency": -1}, "reserved_concurrency"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match="function 'Tested'") as raised:
        config(**settings)
    assert complaint in str(raised.value)
