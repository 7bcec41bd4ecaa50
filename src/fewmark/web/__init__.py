"""The local page of a project: label, review, look. Imports `project` and the rooms below it; nothing imports it.

`python -m fewmark.web PROJECT` serves it; `fewmark label` and `fewmark review` start that.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {"app": ["create_app"]})
