"""Programs in JavaScript, with packages from the registry."""

import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp

NODE, NPM = shutil.which("node"), shutil.which("npm")
_INSTALL_LIMIT_S = 180.0


def installed(sources: Path) -> Path:
    """A directory of its own with everything of ``sources`` and what its ``package.json`` asks for; whoever asks for
    it removes it."""
    assert NPM is not None
    directory = Path(mkdtemp(prefix="vg-node-"))
    try:
        shutil.copytree(sources, directory, dirs_exist_ok=True)
        install = [NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(install, cwd=directory, check=True, timeout=_INSTALL_LIMIT_S)
    except BaseException:
        shutil.rmtree(directory)
        raise
    return directory
