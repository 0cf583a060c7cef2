"""The commands, one a file: flags, and what is printed; `cli.main` imports what is asked for."""
