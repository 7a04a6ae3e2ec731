"""`python -m serve.cli` is the command `raywire`."""

from serve.cli import main

main()
