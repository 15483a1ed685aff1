"""From image files and annotations to batches: recognise, read, check, transform, load.

`kinds` says which task a data set is for; a folder per task reads it; `decode`, `samples`, `seeding`, `batches` and
`report` are what the tasks share. `synthetic` draws a small set, `fruit` one to look at.
"""
