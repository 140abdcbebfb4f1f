"""The lock of a datastore's folder: exclusive for one process, or shared by the processes of one build."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from knn_ner.utils.errors import UserError

LOCK_FILE = "building.lock"

# How long a change waits for another change of the same datastore.
WAIT_SECONDS = 60.0
# Short, because a process that makes one change after another frees the lock only for moments.
POLL_SECONDS = 0.002

FOLDER_ADVICE = "; give a folder that can"


def lock_file(
    file: Path,
    busy: str,
    advice: str = FOLDER_ADVICE,
    wait: float = 0.0,
    on_acquired: Callable[[int], None] | None = None,
) -> AbstractContextManager[object]:
    """Take the exclusive lock of a file; the system frees it when the process dies.

    The file is made if it is missing. A symbolic link is refused, and the content of the file never changes.

    Args:
        file: the lock file.
        busy: error message if another process holds the lock.
        advice: end of the error message if the lock file cannot be opened.
        wait: seconds to wait for another process.
        on_acquired: called with the file descriptor.

    Returns:
        A context manager whose end frees the lock.

    Raises:
        UserError: if another process holds the lock, or the lock file cannot be opened.
    """
    # Imported here because commands that take no lock start faster without it.
    from filelock import FileLock

    # Without flock, filelock would fall back to a lock that outlives its process.
    lock = FileLock(file, thread_local=False, fallback_to_soft=False, on_acquired=on_acquired)
    with _lock_errors(file, busy, advice):
        return lock.acquire(wait, POLL_SECONDS)


class FolderLock(ExitStack):
    """The lock of a datastore's folder; `close` or the end of its context frees it.

    filelock has no shared lock that works on network file systems and that the system frees when a process dies.
    Shared locks therefore use flock on the same lock file. If another process gets the lock while `share` converts
    it, the build ends with an error before other processes join it.

    Args:
        path: the folder, which is made if it is missing.
        wait: seconds to wait for the process that holds an exclusive lock.
        shared: whether to take a shared lock.

    Raises:
        UserError: if the folder cannot be written, or another process holds the lock.
    """

    def __init__(self, path: Path, wait: float = 0.0, *, shared: bool = False):
        super().__init__()
        waited = f"has been writing for {wait:g} s" if wait else "is writing"
        self._file, self._busy = path / LOCK_FILE, f"another process {waited} to this datastore"
        with _lock_errors(self._file, self._busy):
            path.mkdir(parents=True, exist_ok=True)
            if shared:
                # Opened for writing because network file systems require that for a lock.
                descriptor = os.open(
                    path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666
                )
                self._descriptor = self.enter_context(os.fdopen(descriptor)).fileno()
                return self.share()
        descriptors: list[int] = []
        self.enter_context(
            lock_file(self._file, self._busy, wait=wait, on_acquired=descriptors.append)
        )
        (self._descriptor,) = descriptors

    def share(self) -> None:
        """Convert an exclusive lock to a shared one."""
        with _lock_errors(self._file, self._busy):
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def _lock_errors(file: Path, busy: str, advice: str = FOLDER_ADVICE) -> Iterator[None]:
    try:
        yield
    except (BlockingIOError, TimeoutError):
        raise UserError(f"{file.parent}: {busy}; wait until it has finished") from None
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{file.parent}: not a folder; give a folder for the datastore") from None
    except OSError as error:
        if file.is_symlink():
            raise UserError(f"{file}: is a symbolic link, expected a file; remove it") from None
        raise UserError(f"{file.parent}: cannot be written ({error.strerror}){advice}") from None
