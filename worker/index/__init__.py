"""Vectors to neighbours: generations on disk and the live index. The only room that imports faiss.

    kinds        which index for how many vectors, and how it is trained
    searching    asking an index
    tuning       how good it is on a sample, and the search parameters that make it good enough
    copies       many vectors that are almost the same
    pairs        metadata as pairs of a path and a scalar
    columns      what filters ask of photos
    generation   the files of one index, opened and searched
    building     one build of them
    folder       all of them: written, published, fetched, kept
    view         what one search sees: a generation, what came since, what is gone
    live         the view of a process, which follows the log and swaps generations

Each imports none but those above it.
"""
