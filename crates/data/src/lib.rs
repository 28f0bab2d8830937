//! Sample data: descriptors, arrays, images, labels.
