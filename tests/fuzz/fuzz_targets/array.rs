//! Any file is an array, or a message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x.npy", "input_0.pb"] {
        let path = folder.path().join(name);
        std::fs::write(&path, data).unwrap();
        let read = match name {
            "x.npy" => lowbit_data::read_npy(&path),
            _ => lowbit_data::read_pb(&path),
        };
        if let Ok(array) = read {
            assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
        }
    }
});
