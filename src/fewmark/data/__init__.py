"""Faces in images: samples, files, splits, synthetic faces, crops."""
