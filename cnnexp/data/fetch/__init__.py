"""Brings a data set here: downloads, archives, the published sets, tables of files and labels."""
