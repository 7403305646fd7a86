"""Results of the literature as data, one file per data set, and where a figure of one's own stands there."""
