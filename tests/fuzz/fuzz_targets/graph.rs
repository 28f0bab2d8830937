//! Any text is a graph that prints as what it was parsed from, or a message.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(graph) = lowbit_ir::parse(text) {
        let printed = graph.to_string();
        assert_eq!(lowbit_ir::parse(&printed).unwrap().to_string(), printed);
    }
});
