"""Templates with a delivery stream, for tests."""

from __future__ import annotations

from pathlib import Path

OURS = Path(__file__).resolve().parents[1] / "template.yaml"

TRANSFORM = """
          ProcessingConfiguration:
            Enabled: true
            Processors:
              - Type: Lambda
                Parameters:
                  - {ParameterName: LambdaArn, ParameterValue: !Sub "${Transform.Arn}:$LATEST"}
                  - {ParameterName: BufferSizeInMBs, ParameterValue: "0.5"}
                  - {ParameterName: BufferIntervalInSeconds, ParameterValue: "30"}
                  - {ParameterName: NumberOfRetries, ParameterValue: "2"}
"""

DELIVERY = """
  DeliveryBucket:
    Type: AWS::S3::Bucket
  DeliveryRole:
    Type: AWS::IAM::Role
    Properties: {AssumeRolePolicyDocument: {}}
  Transform:
    Type: AWS::Serverless::Function
    Properties: {Handler: consumers.transform.handler, Runtime: python3.12, CodeUri: ., MemorySize: 512}
  Delivery:
    Type: AWS::KinesisFirehose::DeliveryStream
    Properties:
      DeliveryStreamName: raw
      DeliveryStreamType: KinesisStreamAsSource
      KinesisStreamSourceConfiguration:
        KinesisStreamARN: !GetAtt TelemetryStream.Arn
        RoleARN: !GetAtt DeliveryRole.Arn
      ExtendedS3DestinationConfiguration:
          BucketARN: !GetAtt DeliveryBucket.Arn
          RoleARN: !GetAtt DeliveryRole.Arn
          BufferingHints: {SizeInMBs: 1, IntervalInSeconds: 60}
          Prefix: raw/!{timestamp:yyyy}/
          ErrorOutputPrefix: bad/
          CompressionFormat: GZIP
          CloudWatchLoggingOptions: {Enabled: false}
"""


def ours_with(resources: str, folder: Path) -> Path:
    """A copy of our template beside its code, with ``resources`` added to it."""
    head, mark, outputs = OURS.read_text().partition("\nOutputs:")
    for name in ("consumers", "samconfig.toml"):
        if not (folder / name).exists():
            (folder / name).symlink_to(OURS.parent / name)
    path = folder / "template.yaml"
    path.write_text(head + resources + mark + outputs)
    return path
