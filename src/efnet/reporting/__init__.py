"""HTML pages, SVG charts and plots."""
