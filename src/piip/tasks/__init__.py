"""What the package does with a model: one module per task, with the functions that `task.Task` describes.

`of` chooses by the model, `kind_of_data` by the data, and `require_pairing` says which model would fit where the two
do not agree.
"""

from piip.data.kinds import kind_of_data
from piip.tasks.choice import EVALUATION_FILES, SUGGESTED, check_data, named, of, open_data, require_pairing
from piip.tasks.findings import FINDINGS_FILE, in_a_line, leave_out, note_unreadable, require_enough, write_findings
from piip.tasks.task import Data, Metrics, Report, Task, spread

__all__ = [
    "EVALUATION_FILES",
    "FINDINGS_FILE",
    "SUGGESTED",
    "Data",
    "Metrics",
    "Report",
    "Task",
    "check_data",
    "in_a_line",
    "kind_of_data",
    "leave_out",
    "named",
    "note_unreadable",
    "of",
    "open_data",
    "require_enough",
    "require_pairing",
    "spread",
    "write_findings",
]
