"""The schematics of the course, and its longer drawings.

`python -m support.figures` draws every schematic anew into chNN/figures. `kit` has the
parts of which all are made, so that all look alike; each chapter has a module with a
function for each of its schematics.
"""
