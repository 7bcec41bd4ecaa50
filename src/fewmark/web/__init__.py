"""What is asked over HTTP: the local page of a project (label, review, look), and in `serving` a detector. Nothing imports it.

`python -m fewmark.web PROJECT` serves the page, `fewmark label` and `fewmark review` start that; `fewmark serve` starts
`python -m fewmark.web.serving MODEL`.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {"app": ["create_app"]})
