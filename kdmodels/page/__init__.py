"""The page: what is laid out, and what happens when it is used. Models and numbers live outside."""
