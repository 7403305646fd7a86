"""From images to label maps: one engine for prediction, evaluation, video and the service."""
