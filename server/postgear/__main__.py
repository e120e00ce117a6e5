"""``python -m postgear``: the same as the command ``postgear``."""

import sys

from postgear.cli import main

sys.exit(main())
