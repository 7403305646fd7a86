"""The demo: generated scenes, a small network, and one page that shows what came of it."""
