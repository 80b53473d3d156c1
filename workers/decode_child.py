"""The decoder's processes: a template process that has everything imported, and its forked children.

Importing every codec takes a while; forking the template takes milliseconds and shares its memory, so that a
child that died or hangs is replaced at once. The template itself never sees a photo. A child decodes
one photo after the other under limits on memory, processor time, files and cores, ends when either its
parent or the template ends, and leaves by itself when it is old or has grown.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from homeward.errors import PhotoReason, PhotoRejected
from workers.decode import DecodedPhoto, DecodeLimits
from workers.decode_wire import MESSAGE_BYTES, Layout, SharedSlots, receive, send

Decoder = Callable[[bytes, DecodeLimits], DecodedPhoto]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_ORPHAN_CHECK_MS = 1000
_RECYCLE_PHOTOS = 5000
_RECYCLE_GROWTH_BYTES = 256 << 20
_GROWTH_CHECK_EVERY = 16  # photos
_LARGE_PIXELS = 4_000_000  # after such a photo growth is looked at in any case
_CPU_GRACE_S = 2
_OPEN_FILES = 64


def main(arguments: str) -> None:
    """Run the template process. `arguments`: what `workers.decode_process` gives it, as JSON."""
    settings = json.loads(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent ends us, not the terminal's Ctrl-C
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    control = socket.socket(fileno=settings["control"])
    limits = DecodeLimits(**settings["limits"])
    try:
        decoder = _prepare(settings["decoder"], limits)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        send(control, {"error": traceback.format_exc()[-2000:]})
        return
    send(control, {"ready": os.getpid()})
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while os.getppid() == settings["parent"]:
        if not poll.poll(_ORPHAN_CHECK_MS):
            continue
        raw, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 2)
        if not raw:
            return
        template = os.getpid()
        if os.fork() == 0:
            control.close()
            _run_child(descriptors, limits, decoder, settings, template)
        for descriptor in descriptors:
            os.close(descriptor)


def _prepare(decoder: str, limits: DecodeLimits) -> Decoder:
    """Import the decoder and all that it imports later, and set what is set per process."""
    module, _, name = decoder.partition(":")
    function: Decoder = getattr(importlib.import_module(module), name)
    from PIL import AvifImagePlugin, Image

    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = limits.max_pixels  # Pillow's own net, above ours by a factor of two
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the pool is parallel already, and threads take address space
    if module == "workers.decode":
        import pillow_heif

        pillow_heif.register_heif_opener(
            thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
        )
        sample = io.BytesIO()
        Image.new("RGB", (64, 64)).save(sample, "JPEG")
        function(sample.getvalue(), DecodeLimits(max_bytes=1 << 20, max_pixels=1 << 20))
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the shared pages
    return function


def _run_child(
    descriptors: list[int], limits: DecodeLimits, decoder: Decoder, settings: dict[str, Any], template: int
) -> None:
    """A child's life; never returns."""
    try:
        _end_with(template)
        channel = socket.socket(fileno=descriptors[0])
        shared = SharedSlots(descriptors[1], Layout.of(limits))
        os.close(descriptors[1])
        _confine(settings["memory_bytes"])
        send(channel, {"ready": os.getpid()})
        _serve(channel, shared, limits, decoder, settings["timeout_s"])
    except BaseException:  # noqa: BLE001 - a child never runs on into the template's loop
        os._exit(1)
    os._exit(0)


def _end_with(template: int) -> None:
    """Have the kernel kill this process when the template ends, and never grant it new rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != template:  # it ended before the kernel was told
        os._exit(0)


def _confine(memory_bytes: int) -> None:
    """Limits that hold for everything a codec does from here on."""
    address_space = _statm()[0] + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a photo must not end in a core dump
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))


def _serve(
    channel: socket.socket, shared: SharedSlots, limits: DecodeLimits, decoder: Decoder, timeout_s: float
) -> None:
    """Decode until the parent is gone, or until this child had better be replaced."""
    private_at_start = _private_bytes()
    for count in range(1, _RECYCLE_PHOTOS + 1):
        message = receive(channel)
        if message is None:
            return
        slot: int = message["slot"]
        # The parent's clock ends a photo that hangs; this ends it should the parent be stopped itself.
        cpu_s = int(time.process_time() + timeout_s) + _CPU_GRACE_S
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
        shared.mark_started(count)
        answer = _answer(shared, slot, message["bytes"], limits, decoder)
        if (
            count % _GROWTH_CHECK_EVERY == 0
            or answer.get("width", 0) * answer.get("height", 0) > _LARGE_PIXELS
        ):
            answer["leaving"] = _private_bytes() - private_at_start > _RECYCLE_GROWTH_BYTES
        if count == _RECYCLE_PHOTOS:
            answer["leaving"] = True
        send(channel, answer)
        if answer.get("leaving"):
            return


def _answer(
    shared: SharedSlots, slot: int, count: int, limits: DecodeLimits, decoder: Decoder
) -> dict[str, Any]:
    """Decode the photo in a slot and say how it went."""
    try:
        photo = decoder(shared.read_input(slot, count), limits)
        shared.write_output(slot, photo.pixels)
    except PhotoRejected as refusal:
        return {"reason": refusal.reason, "message": refusal.message, "details": refusal.details}
    except MemoryError:
        return {"reason": PhotoReason.DECODE_MEMORY, "message": "decoding took more memory than allowed"}
    return {
        "pixels": photo.pixels.shape[:2],
        "width": photo.width,
        "height": photo.height,
        "media_type": photo.media_type,
    }


def _private_bytes() -> int:
    resident, shared = _statm()[1:3]
    return resident - shared


def _statm() -> tuple[int, ...]:
    """This process's memory in bytes: address space, resident, shared, and more (proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - twice as fast as a Path
        return tuple(int(pages) * resource.getpagesize() for pages in file.read().split())
