"""The command line: parses, shows progress, prints; the work is done by `mtl_face.run`."""
