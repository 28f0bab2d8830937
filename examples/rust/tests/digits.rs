//! Runs the application.

#[test]
fn it_sees_a_three() {
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_digits-example"))
        .output()
        .expect("the application starts");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && text.ends_with("is a 3\n"),
        "{run:?}"
    );
}
