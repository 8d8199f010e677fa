"""Scores that come with the package, so that no script is fetched for them."""
