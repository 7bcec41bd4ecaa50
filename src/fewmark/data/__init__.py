"""Faces in pictures: samples, files, splits, drawn faces, crops."""
