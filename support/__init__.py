"""What a reader of the course uses and need not read.

Each folder has one purpose. The modules beside the folders are used by all of them:
checks of arguments, the ends of commands, safe printing, words of any script, paths.
"""
