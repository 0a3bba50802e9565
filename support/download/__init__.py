"""Download files completely or not at all, and read them or explain what is wrong.

Downloads use several mirrors, resume, and are checked by size and sha256. There are
readers for JSON, tables of messages, vocabularies, and OpenAI's weights.
"""
