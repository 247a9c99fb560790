"""From records to numbers with intervals, tables, figures and the page; ``robustcal.report("runs/x")`` makes them."""

import sys

from .verb import Verb

__doc__ = f"{__doc__}\n\n{Verb.__call__.__doc__}"  # help(robustcal.report) says how it is called
sys.modules[__name__].__class__ = Verb
