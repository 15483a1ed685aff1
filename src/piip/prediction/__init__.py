"""Images in almost any form in, results out: what a prediction returns, and the files it writes."""
