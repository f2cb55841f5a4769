"""Draws the synthetic data set: canvas, scenery, animals, and the evidence that tells them apart."""
