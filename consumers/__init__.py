"""The Lambda functions of Alleycat, one handler a module. They run in AWS unchanged: boto3 and requirements.txt."""
