"""Where the bundles and worlds that come with Flaneur lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from engine.files.bundle import SPEC_FILE, Bundle, open_bundle
from engine.files.refiner import bundled_refiner, open_refiner


def assets_dir() -> Path:
    """Return the folder of shipped assets: `assets/` of a checkout, `engine/assets/` of a wheel."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "assets"
    return installed if installed.is_dir() else package.parent / "assets"


def bundles_dir() -> Path:
    return assets_dir() / "bundles"


def worlds_dir() -> Path:
    return assets_dir() / "worlds"


def checkpoints_dir() -> Path:
    """Weights to train on from; a wheel does not carry them."""
    return assets_dir() / "checkpoints"


def bundle_names() -> list[str]:
    """Return the names of the shipped bundles."""
    return sorted(file.parent.name for file in bundles_dir().glob(f"*/{SPEC_FILE}"))


def find_bundle(name_or_path: str, verify: bool = True) -> Bundle:
    """Open the shipped bundle of that name, or the bundle in that folder; `verify` as in `open_bundle`."""
    path = Path(name_or_path)
    if len(path.parts) > 1 or path.is_dir():
        return open_bundle(path, verify)
    if name_or_path in bundle_names():
        return open_bundle(bundles_dir() / name_or_path, verify)
    known = ", ".join(bundle_names()) or "none are installed"
    raise ValueError(
        f"there is no bundle called {name_or_path!r}; the bundles here: {known}; or name a bundle's folder"
    )


def shipped_refiner(weights_sha256: str) -> str | None:
    """Say when the refiner refines that ships with a model; None where it has none."""
    bundle = _unverified(weights_sha256)
    folder = None if bundle is None else bundled_refiner(bundle)
    return None if folder is None else open_refiner(folder, verify=False).spec.use


def bundle_for(weights_sha256: str) -> Bundle | None:
    """Open the shipped bundle made from these weights, None if there is none."""
    bundle = _unverified(weights_sha256)
    return None if bundle is None else open_bundle(bundle.path)


def _unverified(weights_sha256: str) -> Bundle | None:
    opened = (open_bundle(bundles_dir() / name, verify=False) for name in bundle_names())
    return next((bundle for bundle in opened if bundle.spec.weights_sha256 == weights_sha256), None)
