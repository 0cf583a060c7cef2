"""Multi-task facial affect: valence/arousal, action units and expressions from one face image.

Importing this package costs nothing; import the part that you need (`mtl_face.model`, ...).
"""

__version__ = "0.1.0"
