"""From photos and videos to aligned face crops.

`models` are the networks, `detect` finds faces and their five landmarks in one picture, `align`
cuts the crop, `track` keeps persons apart over the frames of a video, `video` decodes, `layout`
names sources and their results, `extract` does all of it for many sources.
"""
