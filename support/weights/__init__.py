"""Trained weights: where they come from, and how they are saved and checked.

`load_pretrained` loads GPT-2, SmolLM2-135M-Instruct or the reader's own model, and
checks it. Saved models are safetensors files with a sha256 of all that they hold. In
the shell: `python -m support.weights get|convert|verify|list`.
"""
