import time

time.sleep(30)


def handler(event: object, context: object) -> None:
    pass
