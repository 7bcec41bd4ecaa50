"""Parts of several networks: channel counts, convolutions, initial weights, argument checks."""

from __future__ import annotations

from torch import nn

from fewmark.core.errors import InputError


def scaled_channels(channels: int, width: float) -> int:
    """`channels` times `width`, to the nearest multiple of 8 and at least 8.

    >>> scaled_channels(512, 0.5), scaled_channels(128, 0.1)
    (256, 16)
    """
    return max(8, 8 * int(channels * width / 8 + 0.5))


def conv_relu(n_in: int, n_out: int, kernel: int, *, batch_norm: bool = False) -> list[nn.Module]:
    """Same-size convolution, optional batch norm (then without bias), ReLU."""
    conv = nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=not batch_norm)
    norm = [nn.BatchNorm2d(n_out)] if batch_norm else []
    return [conv, *norm, nn.ReLU(inplace=True)]


def conv_norm_relu(n_in: int, n_out: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """3x3 convolution (a stride of 2 halves the size, rounded up), batch norm, ReLU."""
    conv = nn.Conv2d(n_in, n_out, 3, stride, 1, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]


def init_normal(network: nn.Module, std: float) -> None:
    """Initialise convolution weights from N(0, std), biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            _zero_bias(module)


def init_he(network: nn.Module) -> None:
    """Initialise convolution weights after He et al. for ReLU (normal, fan out), biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            _zero_bias(module)


def init_xavier(network: nn.Module) -> None:
    """Initialise convolution weights after Glorot and Bengio (normal), biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
            _zero_bias(module)


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def check_counts(network: str, **counts: int) -> None:
    """Check that every argument is an integer of at least 1.

    Raises:
        InputError: An argument is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{network}: {name}: expected a whole number of at least 1, given {value!r}")


def check_selection(network: str, name: str, value: object, choices: tuple[object, ...]) -> None:
    """Check that the argument is one of the choices.

    Raises:
        InputError: It is not.
    """
    if value not in choices:
        expected = ", ".join(str(c) for c in choices)
        raise InputError(f"{network}: {name}: expected one of {expected}, given {value!r}")
