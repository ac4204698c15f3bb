"""The default design: it finds the noise, chooses steps from it, and says how far it got."""
