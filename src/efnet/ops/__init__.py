"""Pure tensor functions, without weights: clustering, token and map transforms, windows, distances."""
