"""Reading in a process of its own: a damaged HDF5 file can make its library loop for ever, or end the process."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Unreadable(RuntimeError):
    """A reader from which nothing came back. The message says why, as the end of a sentence."""


def read_apart(read: Callable[[], Any], timeout_s: float) -> Any:
    """What `read` returns, as plain JSON values; it is called in a fork of this process.

    Raises:
        Unreadable: it raised, took longer, or ended its process.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, read), daemon=True)
    child.start()
    sender.close()  # or the end of the child would not be seen
    try:
        if not receiver.poll(timeout_s):
            raise Unreadable(f"reading took longer than {timeout_s:.0f} s, as of a damaged file")
        answer = json.loads(receiver.recv_bytes())
    except EOFError:
        child.join()
        raise Unreadable(f"reading it ended the process ({_how(child.exitcode)}), as a damaged file can") from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if "problem" in answer:
        raise Unreadable(answer["problem"])
    return answer["value"]


def _answer(sender: Connection, read: Callable[[], Any]) -> None:
    try:
        answer = json.dumps({"value": read()})
    except Exception as error:  # whatever a damaged file makes of its reader is the reader's to say
        answer = json.dumps({"problem": (str(error) or type(error).__name__).partition("\n")[0]})
    sender.send_bytes(answer.encode())


def _how(code: int | None) -> str:
    return f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
