"""From images to label maps and pictures."""
