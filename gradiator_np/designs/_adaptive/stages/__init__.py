"""The stages of the default design, in the order of ``plan``."""
