"""The power cut: every file back to what was synced of it.

`kill -9` ends a program but loses nothing that it had handed to the kernel, so it proves recovery and not durability.
The shim (shim.c) writes down what was synced; `cut` throws the rest away. Python 3 standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
_library: Path | None = None
_build_directory: tempfile.TemporaryDirectory | None = None


def library() -> Path:
    """The shim, compiled once in each run of the tests."""
    global _library, _build_directory
    if _library is None:
        _build_directory = tempfile.TemporaryDirectory(prefix="encamp-shim-")
        made = Path(_build_directory.name) / "shim.so"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(made), str(HERE / "shim.c"),
                        "-ldl", "-lpthread"], check=True)
        _library = made
    return _library


@dataclass
class Loss:
    """What one file lost."""

    path: Path
    before: int
    after: int


class Disk:
    """A directory whose files are watched by the shim, with the switches for it.

    `root` is what is watched; `beside` is a directory outside of it for the journal and the switches.
    """

    def __init__(self, root: Path, beside: Path):
        self.root, self.journal, self.control = Path(os.path.realpath(root)), beside / "shim.journal", beside / "shim.control"
        self.delay_ms, self.fail, self.lies = 0, [], []
        self._switch()
        self.baseline()

    def environment(self) -> dict[str, str]:
        """What the program under test needs in its environment."""
        return {"LD_PRELOAD": str(library()), "SHIM_ROOT": str(self.root), "SHIM_JOURNAL": str(self.journal),
                "SHIM_CONTROL": str(self.control)}

    def slow(self, delay_ms: int):
        """From now on every sync takes this much longer; 0: as fast as it can."""
        self.delay_ms = delay_ms
        self._switch()

    def break_syncs(self, *parts: str):
        """From now on every sync of a path that contains one of these fails; none: all work again."""
        self.fail = list(parts)
        self._switch()

    def lie(self, *parts: str):
        """From now on every sync of a path that contains one of these says yes and does nothing."""
        self.lies = list(parts)
        self._switch()

    def _switch(self):
        aside = self.control.with_suffix(".new")
        aside.write_text(f"delay_ms={self.delay_ms}\n" + "".join(f"fail={part}\n" for part in self.fail)
                         + "".join(f"lie={part}\n" for part in self.lies))
        aside.replace(self.control)                        # the program never reads half of it

    def baseline(self):
        """Takes all that is there now as being on the disk."""
        lines = []
        for path in files(self.root):
            about = path.stat()
            lines.append(f"S {about.st_dev} {about.st_ino} {about.st_size}\n")
        self.journal.write_text("".join(lines))

    def synced(self) -> dict[tuple[int, int], int]:
        """Device and inode -> how many bytes are safe."""
        safe: dict[tuple[int, int], int] = {}
        for line in self.journal.read_text().splitlines():
            what, device, inode, length = line.split()
            key, length = (int(device), int(inode)), int(length)
            safe[key] = max(safe.get(key, 0), length) if what == "S" else min(safe.get(key, 0), length)
        return safe

    def cut(self) -> list[Loss]:
        """The power cut, after the program was killed: every file back to its synced length. Says what was lost."""
        safe, losses = self.synced(), []
        for path in files(self.root):
            about = path.stat()
            keep = safe.get((about.st_dev, about.st_ino), 0)
            if about.st_size > keep:
                os.truncate(path, keep)
                losses.append(Loss(path, about.st_size, keep))
        self.baseline()
        return losses


def files(root: Path):
    """Every regular file below a directory, links not followed."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def cut(root: str, beside: str) -> list[Loss]:
    """For use from elsewhere: the same on the journal that a run has left in `beside`."""
    disk = Disk.__new__(Disk)
    disk.root, disk.journal = Path(os.path.realpath(root)), Path(beside) / "shim.journal"
    return disk.cut()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: power_cut.py DIRECTORY DIRECTORY_OF_THE_JOURNAL   (after the program was killed)")
    for loss in cut(sys.argv[1], sys.argv[2]):
        print(f"{loss.path}: {loss.before} -> {loss.after} bytes")
