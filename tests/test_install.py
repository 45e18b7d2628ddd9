"""The lock files install under the oldest pip that a supported Python brings and under the newest, whatever is released."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from ser_lib import ROOT

pytestmark = pytest.mark.slow

LOCKED = re.search(r"^LOCKED = \$\(INSTALL\) (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[
    1
].split()
OFFLINE = ("Temporary failure", "NewConnectionError", "No matching distribution found for pip")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    done = {
        name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))
    }
    return subprocess.run([*map(str, command)], env=done, capture_output=True, encoding="utf-8", cwd=ROOT)


@pytest.fixture(scope="module", params=["23.0.1", ""], ids=["pip of Debian 12", "newest pip"])
def python(request, tmp_path_factory) -> Path:
    """An empty environment with such a pip."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    here = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = f"pip=={request.param}" if request.param else "pip"
    done = run(here, "-m", "pip", "install", "--quiet", "--upgrade", wanted)
    if done.returncode and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return here


def wheel(folder: Path, name: str, version: str, *requires: str) -> str:
    """Write an empty wheel; its line in a lock."""
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: more\n"
    files = {
        f"{about}/METADATA": metadata + "".join(f"Requires-Dist: {item}\n" for item in requires),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for path, text in files.items()
    ]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
        archive.writestr(f"{about}/RECORD", "\n".join((*lines, f"{about}/RECORD,,\n")))
    return f"{name}=={version} --hash=sha256:{sha256(path.read_bytes()).hexdigest()}\n"


def test_a_newer_release_changes_nothing(python, tmp_path):
    """Of a package that another asks for with an extra, which the lock leaves out: old pips took the newest then."""
    lock = tmp_path / "lock.txt"
    lock.write_text(
        wheel(tmp_path, "ser_inner", "1.0") + wheel(tmp_path, "ser_outer", "1.0", "ser_inner[more]>=1"),
        encoding="utf-8",
    )
    wheel(tmp_path, "ser_inner", "2.0")
    done = run(python, "-m", "pip", "install", "--no-index", "--find-links", tmp_path, *LOCKED, lock)
    assert done.returncode == 0, done.stderr
    assert "Version: 1.0" in run(python, "-m", "pip", "show", "ser_inner").stdout
    assert run(python, "-m", "pip", "uninstall", "--yes", "ser_inner", "ser_outer").returncode == 0


@pytest.mark.parametrize("name", ["serve", "notebooks", "test"])
def test_each_lock_installs_and_fits_together(python, name):
    done = run(python, "-m", "pip", "install", "--quiet", *LOCKED, ROOT / f"requirements-{name}.lock")
    assert done.returncode == 0, done.stderr
    assert "No broken requirements" in run(python, "-m", "pip", "check").stdout


def test_without_no_deps_too(python):
    """As conda does; everything is there, so that nothing is left to be looked for."""
    done = run(python, "-m", "pip", "install", "--quiet", *LOCKED[1:], ROOT / "requirements-notebooks.lock")
    assert done.returncode == 0, done.stderr
