"""Files: downloaded whole or not at all, and read or refused in one sentence.

Downloads try several mirrors, resume, and are checked by size and sha256. The readers
of what was downloaded or brought along are here too: JSON, tables of messages, GPT-2's
vocabulary, and the files of OpenAI's weights, TensorFlow checkpoints among them.
"""
