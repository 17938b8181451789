"""What lies on disk: the catalog, folders of arrays, segments, codecs, and the rules they are checked by."""
