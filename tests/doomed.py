"""Run robustcal commands in forked children of one warm process, and kill -9 them at a chosen moment.

Started as a script: reads one JSON request per line, {"argv": [...], "kill_at": N or null, "where": [file endings]},
answers with one line, {"status": exit status or -9, "moments": how many moments the child passed}. A moment is any
call, return or C call made by code in those files: before and after every open, write, fsync, rename and unlink.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading


def child(request: dict, counter: int) -> None:
    """Run the command; die at the chosen moment, else write the number of moments to the pipe."""
    endings, kill_at, passed = tuple(request["where"]), request["kill_at"], 0

    def moment(frame, event, argument) -> None:
        nonlocal passed
        if frame.f_code.co_filename.endswith(endings):
            passed += 1
            if kill_at and passed >= kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    from robustcal.cli import main

    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        threading.setprofile(moment)  # records are written in threads of their own
        sys.setprofile(moment)
        status = main(request["argv"])
        sys.setprofile(None)
    os.write(counter, str(passed).encode())
    os._exit(status)


def warm(argv: list[str]) -> None:
    """Import and read once, in the parent, what every child needs. No gradient: autograd does not survive a fork."""
    import contextlib
    import tempfile

    import torch

    torch.set_num_threads(1)
    from robustcal import registry
    from robustcal.cli import main

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        main([*argv, "--out", folder])
    for name in ("clean", "pgd", "noise", "cw"):
        registry.attacks.get(name)


def serve() -> None:
    """Answer requests until standard input ends; the arguments are those of a first run that warms the process up."""
    warm(sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            child(request, writer)
        os.close(writer)
        passed = b"".join(iter(lambda: os.read(reader, 64), b""))
        os.close(reader)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"status": status, "moments": int(passed or 0)}), flush=True)


if __name__ == "__main__":
    serve()
