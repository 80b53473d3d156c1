"""A `FaceModel` from a bundle folder: checked files, torch networks, the bundle's preprocessing."""

from __future__ import annotations

from pathlib import Path

import torch

from homeward.errors import NotSupported
from workers.bundle import Bundle, EmbedderSpec, read_bundle, read_file
from workers.model import CropSpec, FaceModel
from workers.network import Network, Preprocess, load_network
from workers.yunet import YunetDetector

_RUN_CROPS = {"cpu": 32, "cuda": 512}  # crops of one run of the embedder
_PARITY = 1e-4  # greatest cosine distance between a crop run alone and in a batch


def load_bundle(
    folder: Path, device: torch.device, precision: str = "auto", *, working_px: int = 1024
) -> FaceModel:
    """Read, check and build the bundle in `folder`.

    precision: `float32`, `bfloat16`, or `auto`, which is float32: these small networks lose accuracy
    in bfloat16 faster than they gain speed. working_px: see `workers.yunet.pyramid`.

    Raises `NotFound` (no bundle.toml or a file of it missing), `InvalidInput` (bundle.toml or a graph
    is unsound), `Corrupt` (a file is not the one named), `NotSupported` (operators, output shapes).
    """
    bundle = read_bundle(folder)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    detector_data = read_file(folder, bundle.file(bundle.detector.file))
    network = load_network(detector_data, bundle.detector.file)
    detector = YunetDetector(network, bundle.detector, device, dtype, working_px=working_px)
    embedder = OnnxEmbedder(bundle, read_file(folder, bundle.file(bundle.embedder.file)), device, dtype)
    return FaceModel(
        name=bundle.name,
        detector=detector,
        embedder=embedder,
        device=device,
        mirror=bundle.embedder.mirror,
    )


class OnnxEmbedder:
    """An `Embedder` over a network with one output."""

    def __init__(self, bundle: Bundle, data: bytes, device: torch.device, dtype: torch.dtype) -> None:
        spec = bundle.embedder
        self.model_id = bundle.model_id
        self.dimension = spec.dimension
        self.crop = CropSpec(size=spec.size, points=spec.points)
        self._device = device
        self._network, self._batchable = _batched(data, spec)
        self._network.place(device, dtype)
        self._prepare = Preprocess(spec, device, dtype)

    @torch.inference_mode()
    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        """See `workers.model.Embedder`."""
        if not len(crops):
            return torch.zeros((0, self.dimension), device=self._device)
        size = _RUN_CROPS[self._device.type] if self._batchable else 1
        return torch.cat([self._run(part) for part in torch.split(crops, size)])

    def _run(self, crops: torch.Tensor) -> torch.Tensor:
        return self._network(self._prepare(crops))[0].reshape(len(crops), -1).float()


def _batched(data: bytes, spec: EmbedderSpec) -> tuple[Network, bool]:
    """The network, and whether it may take more than one crop.

    A graph exported for batch 1 is rewritten, and the rewrite proved on noise against the untouched
    graph run one by one; where that fails, the untouched graph is used, one crop at a time.
    """
    network = load_network(data, spec.file)
    noise = torch.randn((3, 3, spec.size, spec.size), generator=torch.Generator().manual_seed(1))
    single = network
    if network.fixed_batch:
        single = load_network(data, spec.file, rewrite_batch=False)
    with torch.inference_mode():
        alone = torch.cat([_answer(single, noise[row : row + 1], spec) for row in range(len(noise))])
        if not bool(torch.isfinite(alone).all()):
            raise NotSupported(f"{spec.file} gives values that are not finite")
        try:
            together = _answer(network, noise, spec)
        except (RuntimeError, NotSupported):
            return single, False
    distance = 1 - torch.cosine_similarity(alone, together).min()
    return (network, True) if float(distance) <= _PARITY else (single, False)


def _answer(network: Network, batch: torch.Tensor, spec: EmbedderSpec) -> torch.Tensor:
    """The network's one output as (n, d); raises `NotSupported` when it has another shape."""
    if len(network.outputs) != 1:
        raise NotSupported(f"{spec.file} must have one output, it has {len(network.outputs)}")
    answer = network(batch)[0]
    if answer.numel() != len(batch) * spec.dimension or len(answer) != len(batch):
        raise NotSupported(
            f"{spec.file} answers {tuple(answer.shape)} for {len(batch)} crops, "
            f"bundle.toml says {spec.dimension} numbers each"
        )
    return answer.reshape(len(batch), -1)
