"""data.synthetic"""
