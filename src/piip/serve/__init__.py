"""A model that answers over HTTP: `piip serve`.

An upload is admitted or refused (`app`), read (`uploads`), decoded in a process that may die (`decoding`), waits
(`batching`) and goes with others through a process that holds the model (`model`), which writes the `answers`.
"""
