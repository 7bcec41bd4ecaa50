"""data.formats"""
