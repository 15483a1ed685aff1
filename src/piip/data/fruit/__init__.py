"""Pictures of fruit on tables, generated, with boxes and masks: `drawing` makes pieces, `table` what they lie on."""
