"""All that is Gradio: what is laid out, and what happens when it is used."""
