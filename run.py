"""The command line. `python run.py --help` lists the commands."""

import sys

from mtl_face.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
