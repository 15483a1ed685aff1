"""What the classes of public data sets are called."""
