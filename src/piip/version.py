"""The version of this package, which files of weights carry too; `pyproject.toml` reads it here."""

__version__ = "0.1.0"
