"""What test workers run in their processes; light, so that a process begins fast."""

import os
import time


class Answering:
    facts = "ready to answer"

    def __call__(self, item: object) -> object:
        if not isinstance(item, str):
            return item
        if item == "die":
            os._exit(9)
        if item == "hang":
            time.sleep(600)
        if item == "fail":
            raise ValueError("no such thing")
        if item == "pid":
            return os.getpid()
        return item


def broken() -> Answering:
    raise ValueError("weights that are none")


def dying() -> Answering:
    os._exit(3)
