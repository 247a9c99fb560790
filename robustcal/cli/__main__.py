"""``python -m robustcal.cli``, the command line for launchers such as torchrun."""

import sys

from . import main

sys.exit(main())
