"""Preparation of data sets: check and resize videos, write shards and annotation files."""
