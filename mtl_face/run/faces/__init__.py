"""From photos, videos and cameras to a table of faces and answers (`run.py predict INPUT...`)."""
