"""The readers of READ_TEXT: each returns the text in a box of an image, or None."""
