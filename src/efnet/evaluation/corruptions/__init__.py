"""What goes wrong with cameras, made to order: one named fault of one image, at five severities."""
