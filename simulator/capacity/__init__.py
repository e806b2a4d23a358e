"""Planning in virtual time: the cloud's own limits, driven by a clock that is only a number."""
