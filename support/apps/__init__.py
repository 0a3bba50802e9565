"""Programs built from the course: a spam filter, an assistant, and a chat.

`python -m support.apps.spam_filter` and `python -m support.apps.assistant` train and
save one; `python -m support.apps.spam_filter ask "a message"` and `python -m
support.apps.chat` use it. The comparison of 6.7 and the forecasts of 7.5 are here, too.
"""
