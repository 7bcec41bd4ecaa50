"""A detector behind HTTP: `python -m fewmark.web.serving MODEL`, as `fewmark serve` starts it."""
