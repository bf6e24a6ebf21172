"""`python -m revgraph`: the command line."""

import sys

from revgraph.cli import main

sys.exit(main())
