"""Results and training targets drawn onto images, one module per kind of result."""
