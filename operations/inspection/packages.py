"""Model packages in the artifact store: kept when a run starts, written out again for a replay."""

from hashlib import sha256
from pathlib import Path

from classifiers import ModelPackage, PackageError, load_package, restore_package
from classifiers.package.package import MANIFEST_FILE, WEIGHTS_FILE
from db.artifacts import ArtifactRef, ArtifactStore
from db.engine import Database
from db.errors import ArtifactError
from db.inspection.runs import model_artifacts

# The card in the record is no substitute for model.json: canonical JSON writes 1.0 as 1, and the package's
# digest tells the two apart.
_MANIFEST = "application/json"
_WEIGHTS = "application/octet-stream"
_FILES = {_MANIFEST: MANIFEST_FILE, _WEIGHTS: WEIGHTS_FILE}


def keep_files(database: Database, store: ArtifactStore, package: ModelPackage) -> list[ArtifactRef]:
    """Put a package's two files into the store, unless the record says that they are there and they are.

    Raises:
        PackageError: the weights changed since the package was loaded.
    """
    with database.session() as session:
        known = model_artifacts(session, package.digest)
    kept = []
    for media_type, name in _FILES.items():
        ref = known.get(media_type)
        if ref is None or not store.exists(ref.digest):
            data = (package.path / name).read_bytes()
            if media_type == _WEIGHTS and sha256(data).hexdigest() != package.weights_sha256:
                raise PackageError(f"{package.path / name}: changed since the package was loaded")
            ref = store.put(data, "model", media_type)
        kept.append(ref)
    return kept


def find_package(
    database: Database, store: ArtifactStore, digest: str, beside: Path, folder: Path
) -> tuple[ModelPackage, str]:
    """Return the package of a digest and where it comes from: the artifact store, else the folder `beside`.

    Args:
        database: the record, which says which artifacts a model's files are.
        store: where they lie.
        digest: of the package.
        beside: the package that the settings name; used only when its digest is this one.
        folder: where to write the package to; it must not exist.

    Raises:
        PackageError: neither has it, and why.
    """
    with database.session() as session:
        known = model_artifacts(session, digest)
    try:
        if not known.keys() >= _FILES.keys():
            raise PackageError("its files were not stored")
        files = [store.get(known[media_type].digest) for media_type in (_MANIFEST, _WEIGHTS)]
        package = restore_package(folder, *files)
        if package.digest != digest:
            raise PackageError(f"the stored files make package {package.digest}")
        return package, "artefact store"  # so replays have recorded it since 0.1.0
    except (ArtifactError, PackageError) as error:
        why = str(error)
    try:
        package = load_package(beside)
    except PackageError as error:
        raise PackageError(f"model {digest} is not in the artifact store ({why}); {error}") from error
    if package.digest != digest:
        raise PackageError(
            f"model {digest} is not in the artifact store ({why}), and {beside} is model {package.digest}"
        )
    return package, str(beside)
