"""`python -m piip` is the `piip` command."""

from piip.cli import main

main()
