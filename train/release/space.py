"""What README.md tells a Hugging Face Space about the published weights."""

from pathlib import Path

from huggingface_hub import metadata_load, metadata_save

from kdmodels.models.checkpoints import Index

README = Path(__file__).parents[2] / "README.md"


def pin_space(index: Index, readme: Path = README) -> None:
    """Name the published repository in the front matter, so that a Space fetches it when it is built.

    `models` links it on the Space's page; `preload_from_hub` holds "repo files revision", as in the
    Hub's Spaces configuration reference, so that the Space starts without a download. Does nothing
    where no repository is pinned, or the index is not the one beside README.md.
    """
    if not index.hub_repo or index.folder.resolve().parent != readme.resolve().parent:
        return
    told = metadata_load(readme) or {}
    files = ",".join(sorted(row.file for row in index.files))
    told["models"] = [index.hub_repo]
    told["preload_from_hub"] = [f"{index.hub_repo} {files} {index.hub_revision}"]
    metadata_save(readme, told)
