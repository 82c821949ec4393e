"""The readers of READ_TEXT: each returns the text in a box of an image, or None.

They take the pixels of the whole image, shape (height, width, 3), and a box [x1, y1, x2, y2] in it.
"""
