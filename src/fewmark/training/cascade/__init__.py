"""training.cascade"""
