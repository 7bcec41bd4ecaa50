"""The command line: `app` registers the commands, one module holds each of them.

Imports every room below; no other room imports it. Modules load torch, OpenCV and NumPy only when a command runs, so that
`fewmark --help` starts fast.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, {"app": ["main"]})
