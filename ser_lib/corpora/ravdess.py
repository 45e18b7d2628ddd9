"""The published RAVDESS speech archive to a folder of clips: what `make data` runs.

An interrupted download continues where it stopped. The folder appears complete or not at all. A zip that was
downloaded by hand and put beside the folder is used if its checksum is right.
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
from ser_lib.errors import CorpusError, explain

# Livingstone SR, Russo FA (2018), PLoS ONE 13(5): e0196391; CC BY-NC-SA 4.0.
URL = "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip"
MD5 = "bc696df654c87fed845eb13823edef8a"
SIZE = 208_468_073  # bytes
N_CLIPS = 1_440

UNPACKED = 2.5  # bytes of clips per byte of zip
TRIES = 5  # connections in one call
WAIT_S = 1.0  # seconds before the second connection; doubles each time
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
ENTRY = re.compile(r"Actor_(\d\d)/(03-01-0[1-8]-0[12]-0[12]-0[12]-\1\.wav)?")
AGAIN = "run `make data` again"


def fetch_ravdess(folder: str | Path = writable(ROOT / "data" / "ravdess")) -> Path:
    """Download, check and unpack RAVDESS speech into `folder`, unless its clips are there.

    The zip is kept beside the folder until it is unpacked.

    Raises
    ------
    CorpusError
        Other files in the folder, too little disk space, no network, a wrong checksum, or an archive with
        other names in it. The message gives the remedy.
    """
    folder = Path(folder).expanduser()
    archive = folder.parent / Path(urlsplit(URL).path).name
    part = archive.with_name(f"{archive.name}.part")
    try:
        n_present = _count_clips(folder)
        if n_present == N_CLIPS:
            print(f"{folder}: all {N_CLIPS} clips are there, nothing to download", file=sys.stderr)
            return folder
        if folder.exists() and any(folder.iterdir()):
            raise CorpusError(f"{folder}: {n_present} of {N_CLIPS} clips; move the folder away and {AGAIN}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        needed = UNPACKED * SIZE + (0 if archive.is_file() else SIZE - _bytes_of(part))
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            raise CorpusError(
                f"{folder.parent}: {free / 1e9:.2f} GB free, the zip and its clips need {needed / 1e9:.2f} GB; "
                f"make room and {AGAIN}"
            )
        if archive.is_file():
            _check_md5(archive, "delete it and")
        else:
            if _bytes_of(part) != SIZE:
                _download(part, archive)
            _check_md5(part, "it was deleted,")
            part.replace(archive)
        _unpack(archive, folder)
        archive.unlink()
    except OSError as error:
        raise CorpusError(f"{folder}: {explain(error)}; correct that and {AGAIN}") from error
    return folder


def _count_clips(folder: Path) -> int:
    """Count the clips in the folder, in any audio format."""
    return len({path.stem for path in folder.glob("Actor_[0-9][0-9]/03-01-*")})


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_md5(path: Path, remedy: str) -> None:
    import pooch

    actual = pooch.file_hash(str(path), alg="md5")
    if actual != MD5:
        if path.suffix == ".part":
            path.unlink()
        raise CorpusError(f"{path}: MD5 {actual}, expected {MD5}; {remedy} {AGAIN}")


def _download(part: Path, archive: Path) -> None:
    """Download `URL` to `part`, in up to `TRIES` connections; each continues what is there."""
    import requests

    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        before = _bytes_of(part)
        problem = "the connection was cut"
        try:
            _transfer(part)
        except requests.RequestException as error:
            problem = f"no connection ({type(error).__name__})"
            offline = isinstance(error, requests.ConnectionError) and _bytes_of(part) == before
            if error.response is not None:
                status = error.response.status_code
                problem = f"the server answers {status}"
                if status < 500 and status != 429:
                    break
            if offline and not attempt:
                break
        if _bytes_of(part) == SIZE:
            return
    raise CorpusError(
        f"{URL}: {problem}, {_bytes_of(part)} of {SIZE} bytes are here; {AGAIN} to continue, "
        f"or download {URL} by hand to {archive} and {AGAIN}"
    )


def _transfer(part: Path) -> None:
    """Append the missing bytes to `part` over one connection; pooch would start from the first byte."""
    import requests
    from tqdm import tqdm

    start = _bytes_of(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(URL, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # `part` is longer than the file, so it is something else
            part.unlink(missing_ok=True)
            return
        response.raise_for_status()
        start = start if response.status_code == 206 else 0  # a server may ignore the range
        offered = start + int(response.headers.get("Content-Length", SIZE - start))
        if offered != SIZE:
            raise CorpusError(
                f"{URL}: {offered} bytes offered, not {SIZE}; log in to this network and {AGAIN}"
            )
        bar = tqdm(total=SIZE, initial=start, unit="B", unit_scale=True, desc=part.stem, file=sys.stderr)
        with bar, part.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(1 << 16):
                bar.update(file.write(chunk))


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside `folder`, then rename; one unexpected name and nothing is unpacked."""
    beside = TemporaryDirectory(prefix=f"{folder.name}-", suffix=".part", dir=folder.parent)
    try:
        with beside, ZipFile(archive) as source:
            for entry in source.infolist():
                if not ENTRY.fullmatch(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
                    raise CorpusError(
                        f"{archive}: {entry.filename!r} is not a RAVDESS clip; nothing unpacked, "
                        f"delete the zip and {AGAIN}"
                    )
            unpacked = Path(beside.name) / folder.name
            source.extractall(unpacked)
            n_clips = _count_clips(unpacked)
            if n_clips != N_CLIPS:
                raise CorpusError(f"{archive}: {n_clips} clips in it, not {N_CLIPS}; delete it and {AGAIN}")
            if folder.is_dir():
                folder.rmdir()  # it is empty; Windows does not rename onto a folder
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
    expected = set()
    for emotion, intensity, statement, repetition, actor in product(
        range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
    ):
        if (emotion, intensity) != (1, 2):  # neutral has no strong rendition
            expected.add(f"03-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}")
    present = set(clips["clip_id"])
    return sorted(expected - present), sorted(present - expected)
