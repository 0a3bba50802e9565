"""An old name of a command: `python -m support.apps.chat` is the new one."""

from support.commands import replaced

if __name__ == "__main__":
    replaced("ch07.chat", "support.apps.chat")
