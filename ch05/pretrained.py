"""An old name of a command: `python -m support.weights` is the new one."""

from support.commands import replaced

if __name__ == "__main__":
    replaced("ch05.pretrained", "support.weights")
