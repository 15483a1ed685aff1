"""Images with label masks: found (`folders`), checked and opened (`masks`), transformed, handed out (`dataset`)."""
