"""These modules decide what a Model needs, from what was observed. None of them does I/O: an import contract proves it.
"""
