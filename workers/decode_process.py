"""The parent's side of decoder processes: starting the template, forking children, talking to one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from homeward.errors import PhotoReason, PhotoRejected, WorkerUnavailable
from homeward.types import UInt8
from workers.decode import DecodeLimits
from workers.decode_formats import PhotoFormat
from workers.decode_wire import SLOTS, Layout, SharedSlots, create_memory, receive, send

_START_TIMEOUT_S = 120.0  # importing from a cold disk, on a busy machine
_FORK_TIMEOUT_S = 20.0
_SIDE_MAX = 1 << 24  # pixels a child may say a photo has across
# `-I` keeps the working folder and PYTHON* variables out; the parent's own path brings its packages in.
_BOOTSTRAP = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from workers.decode_child import main; main(sys.argv[2])"
)
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ", "SYSTEMROOT")
_SET_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "",  # decoders stay off the accelerator
    "MALLOC_ARENA_MAX": "1",  # an arena per thread would eat the address space that is limited
    "OMP_NUM_THREADS": "1",  # a template without threads is safe to fork
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A child's good answer. `pixels` (h, w, 3) belong to the caller."""

    pixels: UInt8
    width: int
    height: int
    media_type: str


class ChildDied(Exception):
    """The child is gone, hangs or talks nonsense; `in_photo`: it had begun the oldest photo it was given."""

    def __init__(self, reason: PhotoReason, *, in_photo: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.in_photo = in_photo


class Template:
    """The process that children are forked from. Thread-safe; restarts itself when it was killed."""

    def __init__(self, limits: DecodeLimits, decoder: str, timeout_s: float, memory_bytes: int) -> None:
        self._limits = limits
        self._layout = Layout.of(limits)
        self._settings = {
            "limits": dataclasses.asdict(limits),
            "decoder": decoder,
            "timeout_s": timeout_s,
            "memory_bytes": memory_bytes,
            "parent": os.getpid(),
        }
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._ready = False
        self._process, self._control = self._start()

    def fork(self) -> Child:
        """A new child. Raises `WorkerUnavailable` when there is no way to get one."""
        with self._lock:
            for _ in range(2):
                try:
                    self._wait_ready()
                    return self._fork()
                except OSError as error:  # the template is gone: out of memory, or killed by hand
                    failure = error
                    self._end()
                    self._process, self._control = self._start()
            raise WorkerUnavailable("photo decoders do not start; see the log and free memory") from failure

    def close(self) -> None:
        """End the template, and with it every child."""
        with self._lock:
            self._end()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready = False
        paths = [str(Path(entry).resolve()) for entry in sys.path]
        with theirs:
            arguments = json.dumps({**self._settings, "control": theirs.fileno()})
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOTSTRAP, json.dumps(paths), arguments],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # codecs chatter; what matters comes as an error
                pass_fds=(theirs.fileno(),),
                env={key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ} | _SET_VARIABLES,
                start_new_session=True,
            )
        return process, ours

    def _wait_ready(self) -> None:
        if self._ready:
            return
        self._control.settimeout(_START_TIMEOUT_S)
        message = receive(self._control)
        self._control.settimeout(_FORK_TIMEOUT_S)
        if message is None:
            raise ConnectionError("the decoder template ended while it started")
        if "error" in message:
            raise WorkerUnavailable(f"photo decoders do not start: {message['error']}")
        self._ready = True

    def _fork(self) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = create_memory(self._layout)
        try:
            with theirs:
                socket.send_fds(self._control, [b"fork"], [theirs.fileno(), memory])
            ours.settimeout(_FORK_TIMEOUT_S)
            pid = _await_pid(ours)
            return Child(ours, SharedSlots(memory, self._layout), pid, self._timeout_s)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(memory)

    def _end(self) -> None:
        """Children of a killed template are killed by the kernel."""
        self._control.close()
        self._process.kill()
        self._process.wait()


def _await_pid(channel: socket.socket) -> int:
    message = receive(channel)
    if message is None:
        raise ConnectionError("a decoder child ended while it started")
    return int(message["ready"])


class Child:
    """One decoder child with up to `SLOTS` photos in flight, answered in order. For one thread."""

    def __init__(self, channel: socket.socket, shared: SharedSlots, pid: int, timeout_s: float) -> None:
        self.pid = pid
        self.leaving = False
        self._channel = channel
        self._shared = shared
        self._timeout_s = timeout_s
        self._process = os.pidfd_open(pid)  # names this process even when its number is used again
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._sent = 0
        self._answered = 0
        self._sizes = [0] * SLOTS
        self._oldest_since = 0.0

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def send(self, data: bytes) -> None:
        """Give it one more photo. Raises `ChildDied` (of no photo) when it is gone."""
        slot = self._sent % SLOTS
        self._shared.write_input(slot, data)
        self._sizes[slot] = len(data)
        try:
            send(self._channel, {"slot": slot, "bytes": len(data)})
        except OSError as error:
            raise ChildDied(PhotoReason.DECODER_DIED, in_photo=self._in_photo) from error
        if self._sent == self._answered:
            self._oldest_since = time.monotonic()
        self._sent += 1

    def receive(self) -> Decoded | PhotoRejected:
        """Wait for the oldest photo's answer. Raises `ChildDied`; the child must be killed then."""
        left_s = self._oldest_since + self._timeout_s - time.monotonic()
        if not self._poll.poll(max(0.0, left_s) * 1000):
            raise ChildDied(PhotoReason.DECODE_TIMEOUT, in_photo=self._in_photo)
        try:
            message = receive(self._channel)
            if message is None:
                raise ChildDied(PhotoReason.DECODER_DIED, in_photo=self._in_photo)
            answer, output_bytes = self._read(message)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ChildDied(PhotoReason.DECODER_DIED, in_photo=True) from error
        slot = self._answered % SLOTS
        self._shared.release(slot, self._sizes[slot], output_bytes)
        self._answered += 1
        self._oldest_since = time.monotonic()
        self.leaving = bool(message.get("leaving"))
        return answer

    def kill(self) -> None:
        """End the process at once and forget it."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)

    @property
    def _in_photo(self) -> bool:
        return self._shared.started > self._answered

    def _read(self, message: dict[str, object]) -> tuple[Decoded | PhotoRejected, int]:
        """Check a message as what it is: words of a process that hostile bytes may have taken over."""
        if "reason" in message:
            details = message.get("details") or {}
            if not isinstance(details, dict):
                raise TypeError("details must be an object")
            safe = {str(key): str(value) for key, value in details.items()}
            return PhotoRejected(PhotoReason(str(message["reason"])), str(message["message"]), **safe), 0
        pixels, width, height = message["pixels"], message["width"], message["height"]
        if not (isinstance(pixels, list) and all(type(side) is int for side in (*pixels, width, height))):
            raise TypeError("sizes must be integers")
        rows, columns = pixels
        if not (1 <= int(str(width)) <= _SIDE_MAX and 1 <= int(str(height)) <= _SIDE_MAX):
            raise ValueError("no photo has such sides")
        if not self._shared.fits(rows, columns):
            raise ValueError("more pixels than were agreed on")
        media_type = PhotoFormat(str(message["media_type"])).value
        slot = self._answered % SLOTS
        answer = Decoded(
            self._shared.take_output(slot, rows, columns), int(str(width)), int(str(height)), media_type
        )
        return answer, 3 * rows * columns
