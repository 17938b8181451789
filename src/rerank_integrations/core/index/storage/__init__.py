"""Files of an index: the catalog, folders of arrays, segments, codecs, and the rules by which they are checked."""
