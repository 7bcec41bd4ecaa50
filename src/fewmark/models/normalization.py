"""Mean and standard deviation of ImageNet, which normalise the input of every network. Free of torch."""

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
