"""What a reader of the course uses and need not read.

Each folder in here is a room of its own. The modules that lie beside the rooms are what
all rooms stand on: checks of arguments, what commands print and how they end, and words
of any script.
"""
