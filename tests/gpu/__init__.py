"""Tests of what runs on a GPU: `make test-gpu`."""
