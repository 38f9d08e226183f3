"""Jobs from beginning to end, each a script that can be run: `python -m examples.forecast`.

Eight have a picture each (`python -m examples.gallery`). Seven are done with Keras, too, in `keras`, and are timed
beside it (`python -m examples.run`).
"""
