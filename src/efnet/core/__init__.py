"""The base of every package: errors, files, devices, processes. Imports nothing else of efnet."""
