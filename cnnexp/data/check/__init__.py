"""What is wrong with the files of a data set, before anything is trained on them."""
