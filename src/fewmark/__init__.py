"""fewmark: a few labelled faces and many unlabelled ones in, a facial landmark detector out."""

__version__ = "0.1.0"
