"""Measurements on the machine at hand: what `hwsim calibrate` runs. PyTorch is imported where it is used alone."""
