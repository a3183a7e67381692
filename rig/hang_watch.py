"""The watch that ends a process whose event loop does not turn: a second process, as the first may not be able to.

It counts looks at a pipe to which the loop writes at each turn, and counts none while the process is stopped (SIGSTOP,
a debugger): such a loop does not hang, it is not let run, and turns when it is. An alarm of the process itself would go
off on waking, before the loop has had its turn; and what hangs may hold its interpreter. So this file is also a
program, of nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

LOOKS = 20
"""Looks in a row that find nothing, of a process that could have run: it hangs."""
_ABORT_S = 2.0
"""A process that is told to abort has written where its threads stand by then, or is killed."""


class HangWatch:
    """A watch over this process, from here until `end`: `turned` has to be called more often than every `hang_s`."""

    def __init__(self, hang_s: float) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(hang_s)]
        self._watch = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, bufsize=0
        )
        if self._watch.stdin is None:  # pragma: no cover - it was asked for
            raise OSError("the watch has no pipe")
        self._pipe = self._watch.stdin
        os.set_blocking(self._pipe.fileno(), False)

    def turned(self) -> bool:
        """The loop turns; whether there still is somebody who watches."""
        try:
            self._pipe.write(b".")
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Watch no more."""
        self._pipe.close()
        self._watch.kill()
        self._watch.wait()


def watch(pid: int, hang_s: float, pipe: int) -> None:
    """Look at `pipe` until nobody holds its other end; end process `pid`, its parent, after `LOOKS` at nothing."""
    silent = 0
    while silent < LOOKS:
        if _readable(pipe, hang_s / LOOKS):
            if not os.read(pipe, 4096):
                return
            silent = 0
        else:
            silent = 0 if is_stopped(pid) else silent + 1
    sys.stderr.write(f"the event loop of process {pid} has not turned for {hang_s:g} s: the process is aborted\n")
    sys.stderr.flush()
    for number in (signal.SIGABRT, signal.SIGKILL):
        if os.getppid() == pid:
            os.kill(pid, number)
        if _readable(pipe, _ABORT_S):  # nobody writes any more: this is its end
            return


def is_stopped(pid: int) -> bool:
    """Whether a process is kept from running, by SIGSTOP or a debugger; False where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"T", b"t")


def _readable(pipe: int, timeout_s: float) -> bool:
    return bool(select.select([pipe], [], [], timeout_s)[0])


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), sys.stdin.fileno())
