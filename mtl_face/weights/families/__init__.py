"""Families of backbones: whose arrays a file holds, and which of them are which of the network."""
