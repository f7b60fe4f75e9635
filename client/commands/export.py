"""`flaneur export`: from a model to a bundle, and what a bundle holds."""

from __future__ import annotations

from typing import Annotated

import typer

from client.commands.choices import Json
from client.report import print_json, print_table

app = typer.Typer(help="Make, show and verify engine bundles.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="export")


@app.callback()
def export() -> None:
    """Make, show and verify engine bundles."""


@app.command()
def show(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle.")],
    as_json: Json = False,
) -> None:
    """Show what a bundle says of itself, and check its files."""
    from engine.assets import find_bundle

    opened = find_bundle(bundle)
    spec = opened.spec.model_dump(mode="json")
    result = {"path": str(opened.path), "sha256": opened.sha256, **spec}
    if as_json:
        print_json(result)
        return
    state_bytes = sum(tensor.num_bytes for tensor in opened.spec.state)
    result["state"] = f"{len(opened.spec.state)} tensors, {state_bytes / 2**20:.1f} MiB"
    result["decoder_caches"] = f"{len(opened.spec.decoder_caches)} tensors"
    result["files"] = ", ".join(opened.spec.files)
    print_table(result)
