"""Programs from crops to answers as files: what each has, and their readers."""
