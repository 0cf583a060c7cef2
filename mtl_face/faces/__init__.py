"""From photos and videos to aligned face crops.

`detect` finds faces and their five landmarks in one picture, `align` cuts the crop, `track` and
`people` keep persons apart over the frames of a video, `video` decodes, `extract` does all of it
for one source, `layout` says what is written where.
"""
