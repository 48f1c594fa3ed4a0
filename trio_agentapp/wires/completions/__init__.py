"""OpenAI's Chat Completions API and its list of models over the runs of an app."""
