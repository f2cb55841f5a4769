"""The speed of cnnexp beside named peers, measured in the same run: `make bench`."""
