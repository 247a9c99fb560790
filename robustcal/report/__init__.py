"""From records to numbers with intervals, tables, figures and the page; ``robustcal.report("runs/x")`` makes them."""

import sys

from .verb import Verb

sys.modules[__name__].__class__ = Verb
