"""What the package does with a model: one module per task, with the functions that `task.Task` describes.

`of` chooses by the model, `kind_of_data` by the data, and `require_pairing` says which model would fit where the two
do not agree.
"""

from piip.data.kinds import kind_of_data
from piip.tasks.choice import SUGGESTED, check_data, named, of, require_pairing
from piip.tasks.task import Data, Metrics, Report, Result, Task

__all__ = [
    "SUGGESTED",
    "Data",
    "Metrics",
    "Report",
    "Result",
    "Task",
    "check_data",
    "kind_of_data",
    "named",
    "of",
    "require_pairing",
]
