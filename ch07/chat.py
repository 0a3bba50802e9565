"""An old name of a command: `python -m support.apps.chat` is the new one."""

from support.commands import exit_renamed

if __name__ == "__main__":
    exit_renamed("ch07.chat", "support.apps.chat")
