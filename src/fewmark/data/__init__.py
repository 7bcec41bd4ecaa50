"""Faces in images: samples, files, splits, drawn faces, crops."""
