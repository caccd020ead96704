"""Numbers become Markdown and figures; no number is made here."""
