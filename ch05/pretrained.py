"""An old name of a command: `python -m support.weights` is the new one."""

from support.commands import exit_renamed

if __name__ == "__main__":
    exit_renamed("ch05.pretrained", "support.weights")
