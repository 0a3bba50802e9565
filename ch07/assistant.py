"""An old name of a command: `python -m support.apps.assistant` is the new one."""

from support.commands import replaced

if __name__ == "__main__":
    replaced("ch07.assistant", "support.apps.assistant")
