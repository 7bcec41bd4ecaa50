"""ImageNet's mean and standard deviation, by which every network's input is normalised. No torch is imported."""

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
