"""What every package uses: errors, files, devices, processes. Imports nothing else of efnet."""
