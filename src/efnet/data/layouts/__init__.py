"""One module per data set layout: where its files lie and what its labels mean."""
