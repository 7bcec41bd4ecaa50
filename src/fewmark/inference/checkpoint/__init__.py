"""inference.checkpoint"""
