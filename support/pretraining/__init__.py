"""Pretraining that takes hours: text on disk, many machines, and forecasts.

`python -m support.pretraining tokenize` writes texts as token shards; `run` trains on
them, resumes after a stop, and runs on several processes. Forecasts say beforehand how
much memory and time a run will take.
"""
