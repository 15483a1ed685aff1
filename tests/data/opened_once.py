"""As a script, `opened_once.py COCO_FOLDER`: what each of several processes has of a data set. Prints a JSON line."""

import json
import sys
from pathlib import Path

from piip import processes
from piip.data.detection.coco import CocoData, read_split
from piip.data.detection.splits import find_splits
from piip.data.opening import opened_once
from piip.data.report import DataError


def main(folder: str) -> None:
    read = []

    def one_split(split: str) -> CocoData:
        read.append(split)
        return read_split(find_splits(folder)[split])[0]

    processes.join(cpu=True)
    data = opened_once(lambda: one_split("train"))
    objects = [obj.annotation_id for image in data.images for obj in image.objects]
    try:
        opened_once(lambda: one_split("test"))
    except (DataError, KeyError) as error:
        said = str(error)
    nothing = opened_once(lambda: None)
    processes.leave()
    file = data.images._file and Path(data.images._file.name).name
    print(json.dumps({"read": read, "objects": objects, "file": file, "said": said, "nothing": nothing,
                      "listed": data.report.listed}))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
