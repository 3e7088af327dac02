"""Checking a data set: what is read, counted, found and shown."""
