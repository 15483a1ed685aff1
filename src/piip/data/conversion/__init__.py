"""A data set written anew in a layout that most tools take: COCO's or YOLO's, tables of classes, images and masks."""

from piip.data.conversion.convert import LAYOUTS, Converted, convert_data

__all__ = ["LAYOUTS", "Converted", "convert_data"]
