"""`sailvit recipe show|schema`, `sailvit formats`, `sailvit towers`: what a recipe says, may
say and may name.
"""

from __future__ import annotations

import json

import typer

from sailvit.cli.terminal.options import RecipeName, Set

recipe = typer.Typer(no_args_is_help=True, help="Show a recipe, or what recipes may hold.")

FORMAT_EXAMPLES = {
    "llava": "{format: llava, path: chats.jsonl, images: pictures}",
    "chat": "{format: chat, path: chats.jsonl}",
    "captions": "{format: captions, path: captions.jsonl, images: pictures}",
    "video_frames": "{format: video_frames, path: videos.jsonl}",
    "folder": "{format: folder, path: pictures}",
    "webdataset": "{format: webdataset, path: 'shards/*.tar'}",
    "parquet": "{format: parquet, path: 'rows/*.parquet'}",
    "arrow": "{format: arrow, path: saved_to_disk}",
    "tsv": "{format: tsv, path: questions.tsv}",
    "selected": "{format: selected, path: curated.json}",
    "indexed": "{format: indexed, path: prepared}",
    "world": "{format: world, options: {tasks: {fine: 3, ocr: 1}, size: 8000}}",
    "charts": "{format: charts, options: {size: 8000}}",
    "documents": "{format: documents, options: {size: 8000}}",
}
"""A source of each format, as it stands under `sources` in a recipe."""

TOWER_EXAMPLES = {
    "aimv2_vision_model": "apple/aimv2-large-patch14-448",
    "clip_vision_model": "openai/clip-vit-large-patch14-336",
    "dinov2": "facebook/dinov2-base",
    "dinov2_with_registers": "facebook/dinov2-with-registers-base",
    "dinov3_vit": "facebook/dinov3-vitb16-pretrain-lvd1689m",
    "internvl_vision": "OpenGVLab/InternVL3-1B-hf",
    "siglip_vision_model": "google/siglip-so400m-patch14-384",
    "siglip2_vision_model": "google/siglip2-base-patch16-naflex",
    "vit": "google/vit-base-patch16-224",
}
"""A checkpoint of each family that is known by name."""


@recipe.callback()
def about() -> None:
    """Show a recipe, or what recipes may hold."""


@recipe.command()
def show(
    name: RecipeName,
    overrides: Set = None,
) -> None:
    """Print a recipe as it would run: with defaults, overrides and absolute paths."""
    from sailvit.recipes.loader import dump_recipe, load_recipe

    typer.echo(dump_recipe(load_recipe(name, overrides or ())), nl=False)


@recipe.command()
def schema() -> None:
    """Print the JSON schema of recipes; editors complete and check with it."""
    from sailvit.core.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=1))


def formats() -> None:
    """List the formats of data that a recipe can name, with an example of each."""
    for name, example in FORMAT_EXAMPLES.items():
        typer.echo(f"{name:14}{example}")
    typer.echo("\nThese stand under `sources` in a recipe; docs/data.md lists their options.")


def towers() -> None:
    """List the tower families that are known by name, with a checkpoint of each."""
    for name, example in TOWER_EXAMPLES.items():
        typer.echo(f"{name:24}{example}")
    typer.echo(
        "\nAny other ViT that AutoModel loads is tried out on its own weights, and taken if it"
        "\ngives one token per patch. Shipped: sailvit:world/tower."
    )
