"""An old name of a command: `python -m support.apps.assistant` is the new one."""

from support.commands import exit_renamed

if __name__ == "__main__":
    exit_renamed("ch07.assistant", "support.apps.assistant")
