"""One sample at a time: recursive least squares in square-root form, and Kaczmarz updates."""
