"""A trained network behind HTTP: an interface for programs and a page for people."""
