"""The readers of READ_TEXT: each tells the text in a box of an image, or None where it does not."""
