"""Every write below a folder as the kernel tells it, so that a process can be killed in one."""

import ctypes
import os
import select
import struct
import threading
import time
from collections import Counter
from pathlib import Path

MODIFY, CLOSED, MOVED, CREATED, IS_FOLDER = 0x2, 0x8, 0x80, 0x100, 0x40000000
HEAD = struct.Struct("iIII")


class Watch:
    """Counts writes, closings, moves and creations by class, and acts at one of them.

    Args:
        folder: watched with all below it, whatever is made there.
        classify: gives the class of a path below the folder, or None.
        at: (class, number) of the event at which to act; None: only count.
        act: called at it, in the watching thread: a process is killed within a millisecond.
    """

    def __init__(self, folder, classify, at=None, act=None):
        self.folder, self.classify, self.at, self.act = Path(folder), classify, at, act
        self.counts = Counter()
        self.moment = None  # what was acted at
        self.began, self.first = time.monotonic(), None
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init()
        self._folders = {}
        self._over = threading.Event()
        self._add(self.folder)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _add(self, folder):
        mask = MODIFY | CLOSED | MOVED | CREATED
        number = self._libc.inotify_add_watch(self._handle, os.fsencode(folder), mask)
        if number >= 0:
            self._folders[number] = folder
            try:
                for path in folder.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        self._add(path)
            except OSError:  # it is gone again
                pass

    def _look(self):
        while not self._over.is_set():
            if not select.select([self._handle], [], [], 0.05)[0]:
                continue
            data, start = os.read(self._handle, 65536), 0
            while start < len(data):
                number, mask, _, length = HEAD.unpack_from(data, start)
                name = data[start + HEAD.size :][:length].rstrip(b"\0").decode()
                start += HEAD.size + length
                if number in self._folders:
                    self._see(self._folders[number] / name, mask)

    def _see(self, path, mask):
        if mask & IS_FOLDER:
            self._add(path)
        place = str(path.relative_to(self.folder))
        kind = self.classify(place)
        if kind is None:
            return
        self.first = self.first or time.monotonic()
        for each in (kind, "write"):
            self.counts[each] += 1
            if self.moment is None and self.at == (each, self.counts[each]):
                self.act()
                seconds = time.monotonic() - self.began
                self.moment = f"{each} {self.counts[each]}, {place}, after {seconds:.1f} s"

    def end(self):
        """Stop watching."""
        self._over.set()
        self._thread.join()
        os.close(self._handle)
