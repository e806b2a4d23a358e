"""The embedded AWS: services that enforce their published limits.

Knows nothing of races, producers or consumers.
"""
