"""The errors a user can meet. Each message names the file, what was found, and the remedy."""

import errno
import os

OTHER_PLACE = "allow it (chmod), or choose another place"
ROOM = "make room on the disk, or choose another one"
REMEDIES = {
    "EACCES": OTHER_PLACE,
    "EPERM": OTHER_PLACE,
    "EROFS": "choose a folder that can be written to",
    "ENOSPC": ROOM,
    "EDQUOT": ROOM,
    "EFBIG": "raise the limit of a file's size (`ulimit -f`), or choose another disk",
    "EISDIR": "give the name of a file",
    "ENOTDIR": "a part of the path is a file; give another path",
    "EEXIST": "move it away, or give another path",
    "ENOTEMPTY": "move it away, or give another path",
    "ENOENT": "check the path",
    "ENAMETOOLONG": "give a shorter name",
    "ELOOP": "links that lead in a circle; give another path",
    "EMFILE": "raise the limit of open files (`ulimit -n`), or close other programs",
    "ENFILE": "close other programs",
    "EIO": "the disk or drive does not answer; check it, or choose another one",
}


class SerError(Exception):
    """Base of the family: the command line prints it as one line, the server as JSON."""


class AudioError(SerError):
    """A clip that cannot be read, or is too short, silent or otherwise unusable."""


class CorpusError(SerError):
    """A folder, manifest, download or feature table that is missing or invalid."""


class ContaminationError(CorpusError):
    """A split with test clips that are, in some form, in training too."""


class ReportError(SerError):
    """A notebook that is unknown, got a wrong parameter, or failed while running."""


class BundleError(SerError):
    """A model file that is missing or altered, or fails its self-test."""


def explain(error: OSError, name: str = "") -> str:
    """Return one line about a file that cannot be read or written: its path, what is wrong, the remedy.

    Parameters
    ----------
    name : str
        Of the file, where the error has none.

    Examples
    --------
    >>> explain(OSError(errno.ENOSPC, "No space left on device", "ser.pkl"))
    'ser.pkl: No space left on device; make room on the disk, or choose another one'
    """
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else name
    if error.errno is None:
        text = " ".join(str(error).split()) or type(error).__name__
    else:
        text = error.strerror if error.filename and error.strerror else os.strerror(error.errno)
    remedy = REMEDIES.get(errno.errorcode.get(error.errno or 0, ""))
    line = f"{text}; {remedy}" if remedy else text
    return f"{path}: {line}" if path else line
