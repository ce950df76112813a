"""What processes that were killed left on the disk, removed when the next run starts."""

from fsspec.implementations.local import LocalFileSystem

from configs.schema import Settings
from db.artifacts import ArtifactStore
from db.engine import Database
from db.files import open_folder, remove_unfinished, remove_workspaces
from db.issued.reports import report_by_artifact


def remove_leftovers(settings: Settings, database: Database) -> None:
    """Remove unfinished files from the folders of the record, and temporary folders.

    Nothing that a living process works at is touched, see `db.files`. A report that was recorded as issued
    and had not reached its name yet gets it.
    """

    def issued(digest: str) -> bool:
        with database.session() as session:
            return report_by_artifact(session, digest) is not None

    ArtifactStore(settings.artifacts.uri).remove_unfinished()
    remove_unfinished(LocalFileSystem(), str(settings.report.folder.absolute()), issued)
    if settings.audit.checkpoints is not None:
        remove_unfinished(*open_folder(settings.audit.checkpoints))
    remove_workspaces()
