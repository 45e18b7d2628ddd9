"""The published RAVDESS speech archive to a folder of clips: what `make data` runs.

The transfer goes on where it stopped, and the folder is there whole or not at all. A zip that was
downloaded by hand and put beside the folder is taken as it is, once its checksum is right.
"""

from __future__ import annotations

import re
import shutil
import stat
import sys
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile

import pandas as pd

from ser_lib import ROOT, writable
from ser_lib.errors import CorpusError

# Livingstone SR, Russo FA (2018), PLoS ONE 13(5): e0196391; CC BY-NC-SA 4.0.
URL = "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip"
MD5 = "bc696df654c87fed845eb13823edef8a"
SIZE = 208_468_073  # bytes
N_CLIPS = 1_440

UNPACKED = 2.5  # bytes of clips, a byte of zip
TRIES = 5  # connections in one call
WAIT_S = 1.0  # seconds before the second connection; doubles each time
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
ENTRY = re.compile(r"Actor_(\d\d)/(03-01-0[1-8]-0[12]-0[12]-0[12]-\1\.wav)?")
AGAIN = "run `make data` again"


def fetch_ravdess(
    folder: str | Path = writable(ROOT / "data" / "ravdess"),
    *,
    url: str = URL,
    md5: str = MD5,
    size: int = SIZE,
    n_clips: int = N_CLIPS,
) -> Path:
    """Download, check and unpack RAVDESS speech into `folder`, unless its clips are there.

    Parameters
    ----------
    folder : path
        Where `Actor_NN/` go; the zip is kept beside it until it is unpacked.
    url, md5, size, n_clips
        The archive, its checksum, its bytes and the clips in it.

    Raises
    ------
    CorpusError
        The folder holds something else, too little disk space, no network, a wrong checksum, or an
        archive with other names in it. The message says what to do.
    """
    folder = Path(folder).expanduser()
    archive = folder.parent / Path(urlsplit(url).path).name
    part = archive.with_name(f"{archive.name}.part")
    try:
        held = _count_clips(folder)
        if held == n_clips:
            print(f"{folder}: all {n_clips} clips are there, nothing to download", file=sys.stderr)
            return folder
        if folder.exists() and any(folder.iterdir()):
            raise CorpusError(f"{folder}: holds {held} of {n_clips} clips; move it away and {AGAIN}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        needed = UNPACKED * size + (0 if archive.is_file() else size - _bytes_of(part))
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            raise CorpusError(
                f"{folder.parent}: {free / 1e9:.2f} GB free, the zip and its clips need {needed / 1e9:.2f} GB; "
                f"make room and {AGAIN}"
            )
        if archive.is_file():
            _check_md5(archive, md5, remedy=f"delete it and {AGAIN}")
        else:
            if _bytes_of(part) != size:
                _download(url, part, size, archive)
            _check_md5(part, md5, remedy=f"it was deleted, {AGAIN}")
            part.replace(archive)
        _unpack(archive, folder, n_clips)
        archive.unlink()
    except OSError as error:
        raise CorpusError(f"{folder}: {error}; put that right and {AGAIN}") from error
    return folder


def _count_clips(folder: Path) -> int:
    """Clips in the folder, in whatever audio format they are kept."""
    return len({path.stem for path in folder.glob("Actor_[0-9][0-9]/03-01-*")})


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_md5(path: Path, md5: str, *, remedy: str) -> None:
    import pooch

    found = pooch.file_hash(str(path), alg="md5")
    if found != md5:
        if path.suffix == ".part":
            path.unlink()
        raise CorpusError(f"{path}: MD5 {found}, expected {md5}; {remedy}")


def _download(url: str, part: Path, size: int, archive: Path) -> None:
    """Fetch `url` into `part`, going on behind what is there; a cut connection is tried again."""
    import requests

    for attempt in range(TRIES):
        had = _bytes_of(part)
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        problem, worth_a_try = "the connection was cut", True
        try:
            _transfer(url, part, size)
        except requests.HTTPError as error:
            status = error.response.status_code  # type: ignore[union-attr]  # it has come
            problem, worth_a_try = f"the server answers {status}", status >= 500 or status == 429
        except requests.ConnectionError as error:
            problem = f"no connection ({type(error).__name__})"
            worth_a_try = attempt > 0 or _bytes_of(part) > had
        except requests.RequestException as error:
            problem = f"the connection was cut ({type(error).__name__})"
        if _bytes_of(part) == size:
            return
        if not worth_a_try:
            break
    raise CorpusError(
        f"{url}: {problem}, {_bytes_of(part)} of {size} bytes are here; {AGAIN}, it goes on where it stopped, "
        f"or download {url} by hand to {archive} and {AGAIN}"
    )


def _transfer(url: str, part: Path, size: int) -> None:
    """One connection. pooch cannot resume a download, so this asks for the missing range itself."""
    import requests
    from tqdm import tqdm

    had = _bytes_of(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing behind what is here, so that is not the file
            part.unlink(missing_ok=True)
            return
        response.raise_for_status()
        had = had if response.status_code == 206 else 0
        offered = had + int(response.headers.get("Content-Length", size - had))
        if offered != size:
            raise CorpusError(f"{url}: {offered} bytes are offered, not {size}; is a login page in between?")
        bar = tqdm(total=size, initial=had, unit="B", unit_scale=True, desc=part.stem, file=sys.stderr)
        with bar, part.open("ab" if had else "wb") as file:
            for chunk in response.iter_content(1 << 16):
                bar.update(file.write(chunk))


def _unpack(archive: Path, folder: Path, n_clips: int) -> None:
    """Unpack beside `folder`, then rename; one entry of another name and nothing is unpacked."""
    beside = TemporaryDirectory(prefix=f"{folder.name}-", suffix=".part", dir=folder.parent)
    try:
        with beside, ZipFile(archive) as source:
            for entry in source.infolist():
                if not ENTRY.fullmatch(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
                    raise CorpusError(
                        f"{archive}: {entry.filename!r} is no RAVDESS clip; nothing unpacked, delete the zip and {AGAIN}"
                    )
            unpacked = Path(beside.name) / folder.name
            source.extractall(unpacked)
            held = _count_clips(unpacked)
            if held != n_clips:
                raise CorpusError(f"{archive}: {held} clips in it, not {n_clips}; delete it and {AGAIN}")
            if folder.is_dir():
                folder.rmdir()  # it is empty; not every system renames onto a folder
            unpacked.rename(folder)
    except BadZipFile as error:
        raise CorpusError(f"{archive}: a damaged zip ({error}); delete it and {AGAIN}") from error


def check_ravdess_grid(clips: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Compare with the published speech grid: 24 actors x 60 clips.

    Returns
    -------
    missing, extra : list of str
        Clip ids.

    Examples
    --------
    >>> missing, extra = check_ravdess_grid(pd.DataFrame({"clip_id": ["03-01-01-01-01-01-01", "hum"]}))
    >>> len(missing), extra
    (1439, ['hum'])
    """
    expected = {
        f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for emotion, intensity, statement, repetition, actor in product(
            range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
        )
        if not (emotion == 1 and intensity == 2)  # neutral has no strong rendition
    }
    found = set(clips["clip_id"])
    return sorted(expected - found), sorted(found - expected)
