"""Pretraining that takes hours: text on disk, many machines, and forecasts.

`python -m support.pretraining tokenize` writes texts as shards of token ids; `run`
trains on them, continues after a stop, and works on several processes. Forecasts say
beforehand how much memory and time a run will take.
"""
