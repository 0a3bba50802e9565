"""Remember which files passed a check, so that it need not be repeated.

A file counts as the same while its size, times, inode and device are the same. One of
the times is that of the last change of any kind, which programs cannot set.
"""

import json
import os
import time
from contextlib import suppress

from support.download.files import write_atomically
from support.download.json_files import read_small_json
from support.paths import MODELS

CHECKED = MODELS / "checked_files.json"
MAX_FILES = 200  # that are remembered
LEAST_AGE = 2 * 10**9  # ns since a file's last change, or a change could go unnoticed


class CheckedFiles:
    """Files as they are now, and the checks that they have passed since they changed.

    files: paths, or numbers of open files. A check is named by a text.
    """

    def __init__(self, *files):
        self.files = files
        self.states = [file_state(file) for file in files]

    def have_passed(self, check):
        """Return True if all of the files are known to have passed a check."""
        known = read_known()
        return all(check in known.get(state, []) for state in self.states)

    def note(self, check):
        """Remember that the files have passed a check, unless one has changed."""
        if self.states != [file_state(file) for file in self.files]:
            return
        known = read_known()
        for file, state in zip(self.files, self.states):
            if time.time_ns() - os.stat(file).st_ctime_ns >= LEAST_AGE:
                known[state] = sorted({check, *known.pop(state, [])})
        newest = dict(list(known.items())[-MAX_FILES:])
        with suppress(OSError):  # without it, the next process checks again
            write_atomically(CHECKED, json.dumps(newest, indent=1).encode())


def file_state(file):
    """Return a text that changes with a file: device, inode, size and both times."""
    found = os.stat(file)
    times = found.st_mtime_ns, found.st_ctime_ns
    return " ".join(map(str, (found.st_dev, found.st_ino, found.st_size, *times)))


def read_known():
    """Return the names of the checks that files have passed, by their state."""
    with suppress(OSError, ValueError, TypeError):  # missing or damaged
        known = dict(read_small_json(CHECKED))
        return {
            state: [check for check in checks if isinstance(check, str)]
            for state, checks in known.items()
        }
    return {}
