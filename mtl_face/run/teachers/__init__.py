"""Labels that a model gives: which it may give, where they are kept, and who gave them."""
