//! ONNX importer: file to float graph.
