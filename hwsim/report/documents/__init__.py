"""Reports of what hwsim found: one document per kind of answer."""
