"""What a run, a sweep, a comparison and a reproduction are and do; without a command line."""
