"""Modules with weights: the TCFormer backbone, the parts of EFNet, and the networks made of them."""
