"""What to install for a part of the package whose dependencies are optional."""

from __future__ import annotations

import re

_PACKAGE = "fewmark"
_REQUIREMENT = re.compile(r"\s*([\w.-]+)(?:\[([\w,.-]+)\])?([^;\[]*)(?:;(.*))?")


def install_hint(extra: str = "", *packages: str) -> str:
    """The command that installs what an extra needs, by the package's own metadata.

    The extra's packages are named, because the package itself is installed from a checkout or a wheel.

    Args:
        extra: Name of the extra, or "" for none.
        packages: Other dependencies of the package that may be missing.

    >>> install_hint("plot"), install_hint("", "onnxruntime")
    ('pip install "matplotlib>=3.8"', 'pip install "onnxruntime>=1.18"')
    """
    known = _requirements()
    found = [*_needs(extra, known), *(r for p in packages for r in _needs("", known, p))]
    if not found:
        return f'pip install -e ".[{extra}]" in the folder of fewmark' if extra else f"pip install {' '.join(packages)}"
    return "pip install " + " ".join(f'"{r}"' for r in dict.fromkeys(found))


def required_packages(extra: str = "") -> list[str]:
    """Names of the packages that an extra needs, or that are always needed.

    >>> required_packages("heic")
    ['pillow-heif']
    """
    known = _requirements()
    found = _needs(extra, known) if extra else [r for r in known if "extra" not in r.partition(";")[2]]
    return [match[1] for r in found if (match := _REQUIREMENT.fullmatch(r)) is not None]


def _requirements() -> list[str]:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires(_PACKAGE) or []
    except PackageNotFoundError:  # run from its folder, without an installation
        return []


def _needs(extra: str, known: list[str], package: str | None = None) -> list[str]:
    """The requirements of an extra, or the one without an extra of this package."""
    needs: list[str] = []
    for requirement in known:
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            continue
        name, extras, version, condition = match.groups()
        of = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", condition or "")
        if (of[1] if of else "") != extra or (package or name) != name or not (extra or package):
            continue
        inner = extras.split(",") if extras else []
        needs += [n for e in inner for n in _needs(e, known)] if name == _PACKAGE else [name + version.strip()]
    return needs
