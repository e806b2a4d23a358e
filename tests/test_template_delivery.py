"""AWS::KinesisFirehose::DeliveryStream in a template: what is understood and refused, and who says it is not run."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from delivery_templates import DELIVERY, TRANSFORM, ours_with
from rich.console import Console
from template_files import MARK, SAM, fails, load

from simulator.deployment import TransformSpec, load_deployment, to_dict
from simulator.deployment_view import render

ALLEYCAT = [sys.executable, "-c", "from simulator.cli import main; main()"]
STREAM = """
Resources:
  TelemetryStream: {Type: AWS::Kinesis::Stream, Properties: {Name: bikes, ShardCount: 1}}
"""
WHOLE = SAM + STREAM + DELIVERY.lstrip("\n") + TRANSFORM.lstrip("\n")


def test_what_is_said_is_understood(tmp_path: Path) -> None:
    deployment = load(
        tmp_path, WHOLE + "Outputs:\n  Arn: {Value: !GetAtt Delivery.Arn}\n  Name: {Value: !Ref Delivery}"
    )
    (found,) = deployment.delivery_streams
    (function,) = deployment.functions
    assert to_dict(found) == {
        "logical_id": "Delivery",
        "name": "raw",
        "arn": "arn:aws:firehose:us-east-1:123456789012:deliverystream/raw",
        "stream_arn": "arn:aws:kinesis:us-east-1:123456789012:stream/bikes",
        "bucket_arn": "arn:aws:s3:::alleycat-deliverybucket",
        "buffer_mb": 1,
        "buffer_s": 60,
        "prefix": "raw/!{timestamp:yyyy}/",
        "error_prefix": "bad/",
        "compression": "GZIP",
        "transform": {"function_arn": function.arn, "buffer_mb": 0.5, "buffer_s": 30, "retries": 2},
    }
    assert (found.stream_name, found.bucket_name) == ("bikes", "alleycat-deliverybucket")
    assert deployment.outputs == {"Arn": found.arn, "Name": "raw"}
    ignored = {one.what for one in deployment.ignored}
    where = "Delivery.ExtendedS3DestinationConfiguration"
    assert {f"{where}.RoleARN", f"{where}.CloudWatchLoggingOptions"} <= ignored
    assert "Delivery.KinesisStreamSourceConfiguration.RoleARN" in ignored


def test_defaults_are_those_of_aws(tmp_path: Path) -> None:
    bare = WHOLE.partition("          BufferingHints")[0]
    (found,) = load(tmp_path, bare).delivery_streams
    assert (found.buffer_mb, found.buffer_s, found.compression, found.prefix) == (5, 300, "UNCOMPRESSED", "")
    assert found.transform is None
    parameters = WHOLE.partition("                  - {ParameterName: BufferSize")[0]
    (found,) = load(tmp_path, parameters).delivery_streams
    assert found.transform == TransformSpec(load(tmp_path, parameters).functions[0].arn, 1.0, 60, 3)
    (found,) = load(tmp_path, WHOLE.replace("Enabled: true", "Enabled: false")).delivery_streams
    assert found.transform is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Type: KinesisStreamAsSource", "Type: DirectPut  #<<", "'DirectPut' is not supported; use KinesisStreamAs"),
        ("SizeInMBs: 1,", "SizeInMBs: 129,  ", "SizeInMBs must be a whole number from 1 to 128"),
        ("IntervalInSeconds: 60", "IntervalInSeconds: 901", "IntervalInSeconds must be a whole number from 0 to 900"),
        ("Format: GZIP", "Format: LZ4  #<<", "CompressionFormat must be UNCOMPRESSED or GZIP or"),
        ("Prefix: bad/", "Prefix: bad/\n          S3BackupMode: Enabled  #<<", "S3BackupMode must be Disabled"),
        (
            "Prefix: bad/",
            "Prefix: bad/\n          DynamicPartitioningConfiguration: {Enabled: true}  #<<",
            "the property DynamicPartitioningConfiguration of AWS::KinesisFirehose::DeliveryStream is not supported",
        ),
        (
            "      DeliveryStreamName: raw",
            "      DeliveryStreamName: raw\n      RedshiftDestinationConfiguration: {}  #<<",
            "the property RedshiftDestinationConfiguration of AWS::KinesisFirehose::DeliveryStream is not supported",
        ),
        ("DeliveryStreamName: raw", "DeliveryStreamName: a b  #<<", "'a b' is not a possible DeliveryStreamName"),
        ("!GetAtt DeliveryBucket.Arn", "!Ref DeliveryBucket  #<<", "BucketARN must be the ARN of a bucket"),
        ("!GetAtt TelemetryStream.Arn", "!Ref TelemetryStream  #<<", "KinesisStreamARN must be the ARN of a Kinesis"),
        ("- Type: Lambda", "- Type: MetadataExtraction  #<<", "of type MetadataExtraction is not supported"),
        ('!Sub "${Transform.Arn}:$LATEST"', "Transform", "LambdaArn must be the ARN of a function, not 'Transform'"),
        ('"0.5"', '"3.5"', "BufferSizeInMBs must be a number from 0.2 to 3, not '3.5'"),
        ("ParameterName: NumberOfRetries", "ParameterName: Retries", "ParameterName must be LambdaArn or"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in WHOLE
    fails(
        tmp_path, WHOLE.replace(old, new, 1), says.replace("of type MetadataExtraction", "of type 'MetadataExtraction'")
    )


@pytest.mark.parametrize(
    ("arn", "says"),
    [
        ("stream/other", "stream/other is not a stream of this template; declare it"),
        ("function:other", "function:other is not a function of this template; declare it"),
    ],
)
def test_what_it_refers_to_must_be_there(tmp_path: Path, arn: str, says: str) -> None:
    service = "kinesis" if arn.startswith("stream") else "lambda"
    old = "!GetAtt TelemetryStream.Arn" if service == "kinesis" else '!Sub "${Transform.Arn}:$LATEST"'
    text = WHOLE.replace(old, f"arn:aws:{service}:us-east-1:123456789012:{arn}")
    fails(tmp_path, text.replace("  Delivery:\n", f"  Delivery:  {MARK}\n"), says)
    if service == "kinesis":
        assert load(tmp_path, text, outside_streams=True).delivery_streams[0].stream_name == "other"


def test_alleycat_template_shows_it(tmp_path: Path) -> None:
    console = Console(width=150)
    with console.capture() as screen:
        console.print(render(load(tmp_path, WHOLE)))
    told = screen.get()
    assert "raw, from bikes" in told
    assert "s3://alleycat-deliverybucket/raw/!{timestamp:yyyy}/, 1 MB or 60 s, GZIP" in told
    assert "through alleycat-Transform" in told


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ALLEYCAT, *arguments], capture_output=True, text=True, timeout=120, check=False)


NOT_RUN = (
    "the delivery stream raw is planned, not run: nothing of alleycat is delivered to the bucket "
    "alleycat-deliverybucket here"
)


def test_a_race_says_that_it_is_not_run(tmp_path: Path) -> None:
    """Before it begins; here it does not even begin."""
    path = str(ours_with(DELIVERY, tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("race", "--port", str(taken.getsockname()[1]), "--mqtt-port", "0", "--template", path)
    assert done.returncode == 3
    assert done.stderr.startswith(f"alleycat: warning: {NOT_RUN}\n")


def test_consume_says_so_too(tmp_path: Path) -> None:
    path = str(ours_with(DELIVERY, tmp_path))
    done = run("consume", "--run-time", "1s", "--port", "0", "--functions", "FinalResultsFunction", "--template", path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"alleycat: warning: {NOT_RUN}\n") == 1


def test_a_cloud_says_so_too(tmp_path: Path) -> None:
    path = str(ours_with(DELIVERY, tmp_path))
    command = [*ALLEYCAT, "cloud", "--port", "0", "--mqtt-port", "0", "--json", "--template", path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "alleycat-deliverybucket" in json.loads(process.stdout.readline())["resources"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == f"alleycat: warning: {NOT_RUN}\n"
    finally:
        process.kill()


def test_our_template_has_none() -> None:
    assert load_deployment(Path(__file__).resolve().parents[1] / "template.yaml").not_run == ()
