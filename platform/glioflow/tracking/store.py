"""A tracking store with its runs and its registry of versions, each a bundle that MLflow can load too."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glioflow import atomic, bundle
from glioflow.bundle.starter import STARTER
from glioflow.clock import now_ms
from glioflow.errors import UserError, nearest_choice, option
from glioflow.tracking.addresses import check_writable
from glioflow.tracking.logged_models import MODEL, link_version, log_model
from glioflow.tracking.runs import Runs, every

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUNDLE = "bundle"
CHAMPION, CHALLENGER = "champion", "challenger"
# Path of a version's bundle in its MLflow model.
INSIDE = "artifacts/bundle"
SEALED = "glioflow.bundle"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_RUN_ID = re.compile(r"^(?:runs:/)?(?P<run>[0-9a-f]{32})(?:/bundle)?$")
_RUN_IDS = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_VERSION = re.compile(r"^(?:models:/)?(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>\d+))?$")


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Name of the registered model.
        version: Number of the version, from 1.
        run_id: The run that made it.
        aliases: Aliases, such as `champion`.
        tags: Tags of the version; `glioflow.bundle` is its bundle's digest.
        source: Location of its MLflow model, which contains the bundle.
    """

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    source: str


class Tracking(Runs):
    """A tracking server or database, with its operations on runs and versions."""

    def register(
        self,
        name: str,
        run_id: str,
        folder: Path,
        *,
        tags: Mapping[str, str],
        documents: Mapping[str, str] | None = None,
        example: "NDArray[np.generic] | None" = None,
    ) -> Version:
        """Store a bundle with its run as an MLflow model, and register it as the next version of `name`.

        Args:
            name: Name of the registered model; created if it does not exist.
            run_id: The run that the bundle came from.
            folder: The bundle.
            tags: Tags of the version, besides the bundle's digest.
            documents: Texts stored beside it by file name, such as the model card.
            example: (S, H, W, C), a study in the model's input format.
        """
        from glioflow.tracking.pyfunc import write_model

        _check_name(name)
        check_writable(self.uri)
        self._check_ours(name)
        with contextlib.suppress(self._error):
            self.client.create_registered_model(name)
        destination = f"registered/{name}-{now_ms()}"
        with tempfile.TemporaryDirectory(prefix="glioflow-") as scratch:
            model = Path(scratch) / "model"
            write_model(folder, model, example=example)
            for document, text in (documents or {}).items():
                (model / document).write_text(text)
            self.log_folder(run_id, model, folder=destination)
        source = f"{self.run(run_id).info.artifact_uri.rstrip('/')}/{destination}"
        model_id = log_model(self, run_id)
        sealed = {**tags, SEALED: bundle.digest_of(folder), MODEL: model_id}
        entry = self.client.create_model_version(name, source, run_id, tags=sealed, await_creation_for=0)
        link_version(self, model_id, name, str(entry.version))
        return self._version(entry)

    def versions(self, name: str) -> list[Version]:
        """Return all versions of `name` that GlioFlow registered, newest first.

        Raises:
            UserError: If no version of ours can have this name.
        """
        if not _NAME.fullmatch(name):
            raise self.unregistered(name)
        entries = [entry for entry in self._entries(f"name = '{name}'") if _is_ours(entry)]  # does not include aliases
        aliases = self.client.get_registered_model(name).aliases if entries else {}
        versions = [self._version(entry, [a for a, v in aliases.items() if v == entry.version]) for entry in entries]
        return sorted(versions, key=lambda version: -version.version)

    def names(self) -> list[str]:
        """Return the names of the registered models of which GlioFlow registered a version."""
        return sorted({entry.name for entry in self._entries() if _is_ours(entry)})

    def registered_runs(self) -> set[str]:
        """Return the ids of all runs from which a version of any model was registered, by its run or its source."""
        entries = self._entries()
        return {str(entry.run_id) for entry in entries} | {
            run_id for entry in entries for run_id in _RUN_IDS.findall(entry.source or "")
        }

    def _entries(self, query: str | None = None) -> list[Any]:
        """Return MLflow's entries of all versions, including other people's."""
        return list(every(self.client.search_model_versions, query))

    def _check_ours(self, name: str) -> None:
        """Refuse to add a version to a model that GlioFlow did not register."""
        entries = self._entries(f"name = '{name}'")
        if entries and not any(_is_ours(entry) for entry in entries):
            rule = f"the registry has a model {name!r} that GlioFlow did not register"
            raise UserError(rule, name, hint=f"choose another name with {option('name')}")

    def version(self, name: str, *, alias: str | None = None, number: int | None = None) -> Version:
        """Return one version, by alias (default `champion`) or number.

        Raises:
            UserError: If it does not exist.
        """
        entry = self._entry(name, alias=alias or CHAMPION, number=number)
        if entry is None:
            by_alias = f"alias {alias!r}" if alias not in (None, CHAMPION) else CHAMPION
            raise self._no_version(name, by_alias if number is None else f"version {number}")
        return self._version(entry)

    def _entry(self, name: str, *, alias: str, number: int | None = None) -> Any | None:
        """Return MLflow's entry of a version, by number or alias; None if GlioFlow registered none."""
        try:
            if number is not None:
                entry = self.client.get_model_version(name, str(number))
            else:
                entry = self.client.get_model_version_by_alias(name, alias)
        except self._error:
            return None
        return entry if _is_ours(entry) else None

    def unregistered(self, name: str) -> UserError:
        """Return the error for the name of a model that is not registered."""
        names = self.names()
        how = "`glioflow register RUN_ID --name NAME` registers one"
        hint = None if names else f"{how}, and `{STARTER}` ships with GlioFlow"
        if name == STARTER:
            hint = f"{how}; `{STARTER}` ships with GlioFlow and is used without a version or an alias"
        elif nearest_choice(name, [STARTER]) is not None:
            names, hint = [*names, STARTER], None
        rule = f"no model {name!r} is registered"
        if "/" in name:  # a path or an address
            rule = "a registered model must be given by its name"
        return UserError(rule, name, names, hint=hint)

    def _no_version(self, name: str, wanted: str) -> UserError:
        """Return the error for a model that is not registered or lacks the version or alias."""
        if name not in self.names():
            return self.unregistered(name)
        versions = self.versions(name)
        choices = [f"{name}@{alias}" for version in versions for alias in version.aliases]
        choices += [f"{name}/{version.version}" for version in versions]
        how = f"`glioflow promote {name}` makes one the champion" if wanted == CHAMPION else None
        return UserError(f"model {name!r} has no {wanted}", choices=choices, hint=how)

    def champion(self, name: str) -> Version | None:
        """Return the champion of `name`, or None."""
        entry = self._entry(name, alias=CHAMPION)
        return None if entry is None else self._version(entry)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Set `alias` to this version."""
        check_writable(self.uri)
        self.client.set_registered_model_alias(name, alias, str(version))

    def drop_alias(self, name: str, alias: str, version: int) -> None:
        """Remove `alias` if it refers to this version."""
        if str(self.client.get_registered_model(name).aliases.get(alias)) == str(version):
            self.client.delete_registered_model_alias(name, alias)

    def find_bundle(self, model: str) -> tuple[Path, Version | None]:
        """Find a bundle by the name that a user gives.

        Args:
            model: A bundle's folder, a run (`RUN_ID`, `runs:/RUN_ID/bundle`), or a registered model (`NAME`,
                `NAME@alias`, `models:/NAME@alias`, `models:/NAME/3`).

        Returns:
            The bundle's folder on this machine, and its version where it is a registered one.

        Raises:
            UserError: If nothing of that name exists, or a version's bundle is not the one that was registered.
        """
        if (Path(model) / "model.json").is_file():
            return Path(model), None
        if match := _RUN_ID.match(model):
            self.run(match["run"])
            return self.download(f"runs:/{match['run']}/{BUNDLE}"), None
        match = _VERSION.match(model)
        if match is None:
            raise _no_model(model)
        number = int(match["version"]) if match["version"] else None
        version = self.version(match["name"], alias=match["alias"], number=number)
        return self.bundle_of(version), version

    def bundle_of(self, version: Version) -> Path:
        """Fetch the bundle of a version.

        Raises:
            UserError: If its digest differs from the registered one.
        """
        folder = self.download(f"{version.source}/{INSIDE}")
        if bundle.digest_of(folder) != version.tags.get(SEALED):
            rule = "the bundle of a version must be the one that was registered"
            changed = f"{version.name}/{version.version}, whose digest is not the registry's"
            raise UserError(rule, changed, hint="restore its files, or register the run again")
        return folder

    def has_whole_bundle(self, run_id: str, copy: Path) -> bool:
        """Return whether the artifact store holds a run's complete bundle, equal to `copy` if that is complete.

        Its files are fetched and their digests compared, because names and sizes survive a damaged disk.
        An unreachable store counts as holding none.
        """
        with tempfile.TemporaryDirectory(prefix="glioflow-") as scratch:
            try:
                there = self.download(f"runs:/{run_id}/{BUNDLE}", into=scratch)
                bundle.check_files(there)
            except Exception:
                return False
            sealed = bundle.digest_of(there)
        try:
            bundle.check_files(copy)
        except (UserError, OSError):
            return True
        return bundle.digest_of(copy) == sealed

    def fetch_bundle(self, version: Version, out: Path) -> None:
        """Copy the bundle of a version to `out` atomically; raises as `bundle_of` does."""
        folder = self.bundle_of(version)
        with atomic.new_folder(out) as working:
            shutil.copytree(folder, working, dirs_exist_ok=True)

    def document(self, version: Version, name: str) -> str:
        """Return a text that was registered with a version; raises `UserError` if there is none."""
        return self.download(f"{version.source}/{name}").read_text()

    def _version(self, entry: Any, aliases: Sequence[str] | None = None) -> Version:
        names = tuple(sorted(aliases if aliases is not None else entry.aliases or ()))
        return Version(entry.name, int(entry.version), entry.run_id, names, dict(entry.tags), entry.source)


def _is_ours(entry: Any) -> bool:
    return SEALED in entry.tags and bool(entry.run_id)  # a copy registered by hand has none


def _no_model(model: str) -> UserError:
    """Return the error for a text that names neither a bundle's folder nor a run nor a registered model."""
    if Path(model).is_dir() and model:
        return UserError(f"the folder {model} holds no bundle", model, hint="give the folder with model.json")
    if "://" in model:
        hint = "give a bundle's folder, a run id or NAME@alias; an endpoint's URL is only for `predict` and gf.load"
        return UserError(f"{model} is an address, where no model can be opened", model, hint=hint)
    if "/" in model and not model.startswith(("models:", "runs:")):
        hint = "give a bundle's folder, a run id or NAME@alias"
        return UserError(f"there is no bundle's folder {model}", model, hint=hint)
    hint = "`glioflow models` lists the registered ones"
    return UserError("a model must be a bundle's folder, a run id, NAME@alias or models:/NAME/3", model, hint=hint)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        rule = "a model's name must begin with a letter or digit and have at most 81 letters, digits, '.', '_' and '-'"
        raise UserError(rule, repr(name), hint=f"give such a name with {option('name')}")
