"""Choose the face model that the settings name."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from homeward.config import Settings, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from homeward.types import UInt8
    from workers.bulk import BulkEmbedding, Photo
    from workers.decode_cuda import CudaDecoder
    from workers.embedding import Embedding
    from workers.local import LocalEmbedding
    from workers.model import FaceModel
    from workers.pipeline import Pipeline
    from workers.placement import Placements
    from workers.sandbox import DecodePool


def open_model(settings: Settings) -> FaceModel:
    """The default model, or the installed bundle `settings.workers.bundle` names.

    Raises `NotFound` when no such bundle is installed, `Corrupt` when its files are not those it
    names, and what `workers.bundle_model.load_bundle` and `workers.default_model` raise.
    """
    # Torch takes seconds to import: whoever only lists bundles or serves remote workers never waits.
    from workers.bundle import DEFAULT
    from workers.device import pick_device

    workers = settings.workers
    device = pick_device(workers.device)
    if workers.bundle == DEFAULT:
        from workers.default_model import load_default_model

        return load_default_model(
            device, workers.precision, working_px=workers.working_px, face_px=workers.min_face_px
        )
    from workers.bundle_model import load_bundle
    from workers.install import bundle_folder

    folder = bundle_folder(workers.bundle, settings.bundles_dir)
    return load_bundle(folder, device, workers.precision, working_px=workers.working_px)


def open_pipeline(settings: Settings) -> Pipeline:
    """The whole path from decoded photos to templates, with the model the settings name."""
    from workers.device import set_threads
    from workers.pipeline import Pipeline

    set_threads(settings.workers.threads)
    model = open_model(settings)
    if model.device.type == "cuda":
        from workers.gpu_use import watch_gpus

        watch_gpus()
    return Pipeline(model, settings.workers)


def open_decoder(settings: WorkerSettings) -> DecodePool:
    """Child processes that decode photos; the caller closes it.

    Photos come out at twice the detector's working size at most: a face it finds is large enough in
    them for its crop, and a batch of huge photos takes no huge memory.
    """
    from workers.sandbox import DecodePool

    return DecodePool.from_settings(settings, scale_to_px=2 * settings.working_px)


async def open_embedding(settings: Settings, placements: Placements | None = None) -> Embedding:
    """The embedding the settings name: workers over gRPC, at given addresses or where `placements` lists
    them, else the model in this process, loaded off the event loop.

    Raises what `open_model` raises, and `WorkerUnavailable` when no worker answers.
    """
    workers = settings.workers
    if workers.addresses or workers.where == "workers":
        from workers.remote import open_remote

        return await open_remote(workers, placements)
    # The children first: they are cheap to start and independent of the model.
    pool = await asyncio.to_thread(open_decoder, workers)
    try:
        pipeline = await asyncio.to_thread(open_pipeline, settings)
    except BaseException:
        await asyncio.to_thread(pool.close)
        raise
    return local_embedding(pipeline, pool, workers)


def local_embedding(pipeline: Pipeline, pool: DecodePool, settings: WorkerSettings) -> LocalEmbedding:
    """Both side by side in this process, on as many cores as torch uses. Owns them from now on."""
    from workers.device import set_threads
    from workers.local import LocalEmbedding

    cores = set_threads(settings.threads) if pipeline.device == "cpu" else 1
    return LocalEmbedding(pipeline, pool, settings, cores=cores, use_cores=set_threads)


def open_bulk(settings: Settings, hash_picture: Callable[[UInt8], bytes]) -> BulkEmbedding:
    """The model in this process for a bulk load. Raises what `open_model` raises. Close it."""
    # What the decoders are forked from starts first: it takes as long to be ready as the model.
    pool = open_decoder(settings.workers)
    try:
        from workers.bulk import BulkEmbedding, lanes_of
        from workers.device import own_stream, set_threads

        pipeline = open_pipeline(settings)
        decoder = _bulk_decoder(settings, pool, pipeline.device)
    except BaseException:
        pool.close()
        raise

    return BulkEmbedding(
        pipeline,
        decoder,
        lanes=lanes_of(pipeline.device, settings.workers.threads),
        use_threads=set_threads,
        hash_picture=partial(_hashed, hash_picture),
        in_lane=partial(own_stream, pipeline.device),
    )


def _bulk_decoder(settings: Settings, pool: DecodePool, device: str) -> DecodePool | CudaDecoder:
    """With `loads.decode_on_gpu` JPEGs are decoded where the model is, if that is a GPU."""
    if not settings.loads.decode_on_gpu or device == "cpu":
        return pool
    import torch

    from workers.decode_cuda import HEADER_DECODER, CudaDecoder
    from workers.sandbox import DecodePool

    headers = DecodePool.from_settings(settings.workers, decoder=HEADER_DECODER)
    return CudaDecoder(pool, headers, torch.device(device))


def _hashed(hash_picture: Callable[[UInt8], bytes], photo: Photo) -> bytes:
    from workers.device_photo import DevicePhoto, small_pixels

    return hash_picture(small_pixels(photo.planes) if isinstance(photo, DevicePhoto) else photo.pixels)
