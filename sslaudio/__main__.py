"""``python -m sslaudio VERB``."""

import sys

from sslaudio.cli import main

sys.exit(main())
