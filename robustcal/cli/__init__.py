"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from .. import registry
from ..types import UserError, reason_of
from .parser import parser

__all__ = ["main", "parser"]

DATA_ROOT = "ROBUSTCAL_DATA"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status 0 done, 2 a mistake the user can mend (one line on stderr), 130 interrupted."""
    kept = os.environ.get(DATA_ROOT)
    try:
        options = parser().parse_args(argv)
        _stop_like_ctrl_c()
        if options.version:
            print(f"robustcal {__import__('robustcal').__version__}")
            return 0
        if options.command is None:
            parser().print_help()
            return 0
        if getattr(options, "data_root", None):
            os.environ[DATA_ROOT] = options.data_root  # where workers of their own process find it too
        for path in getattr(options, "plugin", ()):
            registry.load_plugin_file(path)
        from . import commands

        return int(getattr(commands, options.command.replace("-", "_"))(options))
    except UserError as error:
        print(f"robustcal: {reason_of(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("robustcal: interrupted; everything finished is kept, run the same command again to continue", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("ROBUSTCAL_DEBUG"):
            raise
        hint = "finished work is kept; set ROBUSTCAL_DEBUG=1 for the whole traceback"
        print(f"robustcal: unexpected {reason_of(error)}; {hint}", file=sys.stderr)
        return 1
    finally:
        if kept is None:
            os.environ.pop(DATA_ROOT, None)
        else:
            os.environ[DATA_ROOT] = kept


def _stop_like_ctrl_c() -> None:
    """A polite kill (a scheduler's, `timeout`'s) ends a command as Ctrl-C does: workers stop, finished work is kept."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
