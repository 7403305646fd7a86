"""`python -m efnet` is the command `efnet`."""

import sys

from efnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
