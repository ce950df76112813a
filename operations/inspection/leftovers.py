"""What processes that were killed left on the disk, removed when the next run starts."""

from fsspec.implementations.local import LocalFileSystem

from configs.schema import Settings
from db.artifacts import ArtifactStore
from db.files import open_folder, remove_unfinished, remove_workspaces


def remove_leftovers(settings: Settings) -> None:
    """Remove unfinished files from the folders of the record, and temporary folders.

    Nothing that a living process works at is touched, see `db.files`.
    """
    ArtifactStore(settings.artifacts.uri).remove_unfinished()
    remove_unfinished(LocalFileSystem(), str(settings.report.folder.absolute()))
    if settings.audit.checkpoints is not None:
        remove_unfinished(*open_folder(settings.audit.checkpoints))
    remove_workspaces()
