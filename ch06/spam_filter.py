"""An old name of a command: `python -m support.apps.spam_filter` is the new one."""

from support.commands import exit_renamed

if __name__ == "__main__":
    exit_renamed("ch06.spam_filter", "support.apps.spam_filter")
