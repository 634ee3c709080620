"""What a kind has beyond the pattern, written by hand.

``<kinds>.py`` gives the generated code of a kind its ``INDEXERS`` and ``<Kind>ListerExpansion``,
the base of its lister. A kind without such a module needs none.
"""
