"""The two models of an upgrade, opened by the bundles that the catalogue names."""

from __future__ import annotations

import asyncio

from catalogue.store import Catalogue
from catalogue.upgrade_types import UpgradeModel
from cluster.worker_placement import CataloguePlacements
from homeward.config import Settings
from homeward.errors import Conflict
from workers.bundle import DEFAULT, read_bundle
from workers.embedding import Embedding
from workers.install import bundle_folder
from workers.open import open_embedding


def settings_for(settings: Settings, bundle: str) -> Settings:
    """The settings with this bundle in the process itself: embedding workers have one model, which may be
    another."""
    chosen = settings.workers.model_copy(update={"bundle": bundle, "addresses": (), "where": "server"})
    return settings.model_copy(update={"workers": chosen})


def serving_settings(settings: Settings, catalogue: Catalogue, wanted: str = "") -> Settings:
    """The settings with the bundle that serves, by the catalogue; before the first upgrade they are as they
    were. `wanted`: the model to be had instead while an upgrade keeps it."""
    found = catalogue.upgrades.latest()
    if found is None:
        return settings
    standby = found.standby
    model = standby if standby is not None and standby.model_id == wanted else found.serving
    return settings_for(settings, model.bundle)


def model_in_use(catalogue: Catalogue, model_id: str, dimension: int) -> tuple[str, int]:
    """The model itself, or the one that serves in its place when an upgrade has retired it."""
    found = catalogue.upgrades.latest()
    kept = () if found is None else (found.serving, found.standby)
    if found is None or any(model is not None and model.model_id == model_id for model in kept):
        return model_id, dimension
    return found.serving.model_id, found.serving.dimension


def describe(settings: Settings, bundle: str) -> UpgradeModel:
    """A bundle's model, without loading it. Raises `NotFound` when it is not installed, and what
    `read_bundle` raises."""
    if bundle == DEFAULT:
        from workers.default_model import MODEL_ID
        from workers.dlib_resnet import DIMENSION

        return UpgradeModel(DEFAULT, MODEL_ID, DIMENSION)
    found = read_bundle(bundle_folder(bundle, settings.bundles_dir))
    return UpgradeModel(found.name, found.model_id, found.embedder.dimension)


async def serving_model(settings: Settings, catalogue: Catalogue) -> UpgradeModel:
    """The model that serves: by the last upgrade, else by the settings, or as the embedding workers say."""
    found = await asyncio.to_thread(catalogue.upgrades.latest)
    if found is not None:
        return found.serving
    workers = settings.workers
    if not workers.addresses and workers.where == "server":
        return describe(settings, workers.bundle)
    embedding = await open_embedding(settings, CataloguePlacements(catalogue))
    try:
        return UpgradeModel(workers.bundle, embedding.model_id, embedding.dimension)
    finally:
        await embedding.close()


async def open_bundle(settings: Settings, model: UpgradeModel) -> Embedding:
    """The model in this process. Raises `Conflict` (BUNDLE_DIFFERS) when the bundle of that name is another
    here, and what `open_embedding` raises."""
    embedding = await open_embedding(settings_for(settings, model.bundle))
    if embedding.model_id == model.model_id:
        return embedding
    await embedding.close()
    raise differs(model, embedding.model_id)


def differs(model: UpgradeModel, found: str) -> Conflict:
    """The bundle of that name is not the one that the upgrade was begun with."""
    return Conflict(
        f"the bundle {model.bundle} here makes templates of {found}, the upgrade is of {model.model_id}: "
        "install the same bundle on every machine",
        code="BUNDLE_DIFFERS",
    )
