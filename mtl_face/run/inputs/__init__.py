"""What a network takes of the rows of a data set: pixels, and features that are kept."""
