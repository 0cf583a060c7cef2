"""The command line. `python run.py --help` lists the commands."""

import sys

from mtl_face.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
