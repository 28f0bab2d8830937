//! Target descriptions: rows of semantic operations.
