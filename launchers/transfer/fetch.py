"""Models and data sets from the hub into its cache, by huggingface_hub, which goes on with what broke off.

HF_TOKEN opens what is private, HF_ENDPOINT names another hub. Each file is held against the hub's own checksum.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.mistake import Wrong
from core.config.hub import LIBRARY, Kind, cache_folder, fetch_command, on_hub, patterns

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Fetched:
    """A version of a repository, and those of its files that were asked for."""

    folder: Path
    files: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


def fetch(path: str, kind: Kind, revision: str | None = None) -> Fetched:
    """Bring a repository, or what is named inside it, into the cache; what is there already stays.

    Args:
        path: `owner/name`, of a data set also with a folder or file behind it.
        revision: a branch, tag or commit; None: the newest.
    Raises:
        Wrong: it is no name, not there, not for this user or not whole; there is no network, or no room.
    """
    named = on_hub(path, kind)
    if named is None:
        raise Wrong(path, "owner/name, as the hub spells it", "correct the name")
    folder = Path(_download(path, *named, kind, revision))
    files = tuple(file for file in sorted(folder.rglob("*")) if file.is_file() and _meant(file, folder / named[1]))
    if not files:
        raise Wrong(f"nothing of use in {path}", f"files of a {kind}", "look at the hub's page for the right name")
    for file in files:
        _refuse_damaged(file, fetch_command(path, kind))
    return Fetched(folder, files)


def _download(path: str, name: str, inside: str, kind: Kind, revision: str | None) -> str:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        found = f"no package {LIBRARY}"
        raise Wrong(found, "the package, which speaks with the hub", f"pip install {LIBRARY}") from error
    allowed, ignored = patterns(kind, inside)
    with _told_why(path, name, kind, revision):
        return snapshot_download(
            name, repo_type=kind, revision=revision, allow_patterns=allowed, ignore_patterns=ignored
        )


@contextmanager
def _told_why(path: str, name: str, kind: Kind, revision: str | None) -> Iterator[None]:
    """What hub, network and disk refuse, in words that help. The library's own texts are not shown."""
    import httpx
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError as error:
        remedy = f"ask for access at {hub}/{name}, then set HF_TOKEN, or type: hf auth login"
        raise Wrong(f"{name}, which is gated", "the token of a user who has access", remedy) from error
    except errors.RepositoryNotFoundError as error:
        other = "leave --dataset out, if it is a model" if kind == "dataset" else "add --dataset, if it is a data set"
        remedy = f"correct the name; {other}; set HF_TOKEN, if it is private"
        raise Wrong(f"no {kind} {name} at {hub}", "one that this user may see", remedy) from error
    except errors.RevisionNotFoundError as error:
        remedy = "correct --revision"
        raise Wrong(f"no revision {revision} of {name}", "a branch, a tag or a commit", remedy) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError) as error:
        off = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        remedy = f"type on a machine with internet that sees {cache_folder()}: {fetch_command(path, kind)}"
        raise Wrong(f"no way to {hub} from here{off}", "the hub", remedy) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise Wrong(f"the answer {status} from {hub} for {name}", "the files", "try again later") from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        remedy = "make room, or set HF_HOME to another folder; what is there already is not fetched again"
        raise Wrong(f"no space left in {cache_folder()}", "room for the files", remedy) from error


def _meant(file: Path, what: Path) -> bool:
    return file == what or what in file.parents


def _refuse_damaged(file: Path, command: str) -> None:
    """Hold a file against the checksum by which the cache names it: SHA-256, or git's for small ones.

    A damaged one is removed, so that it is fetched again. Where a file system has no links there is no such name.
    """
    blob = file.resolve()
    wanted = blob.name
    if blob == file or len(wanted) not in (40, 64):
        return
    begun = hashlib.sha256() if len(wanted) == 64 else hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
    with blob.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: begun)
    if digest.hexdigest() != wanted:
        blob.unlink()
        file.unlink()
        found = f"{file.name} with another checksum than the hub's"
        raise Wrong(found, "the file as it was published", f"fetch it again, it was removed here: {command}")
