"""The HTTP server: OpenAI's protocol for completions, over one scheduler for each model."""
