//! What a descriptor means, on small files that the tests write, and what is said of bad ones.

mod files;

use std::path::Path;

use files::{Folder, fortran, npz, png};
use lowbit_data::{Dataset, Dtype, InputSpec, write_npy};
use proptest::prelude::*;

fn spec(name: &str, shape: &[usize]) -> InputSpec {
    InputSpec {
        name: name.into(),
        shape: shape.to_vec(),
        dtype: Dtype::F32,
    }
}

fn fault(path: &Path, inputs: &[InputSpec]) -> String {
    match Dataset::open(path, inputs) {
        Err(error) => error.to_string(),
        Ok(data) => match data.sample(0) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} was accepted", path.display()),
        },
    }
}

/// Two NHWC samples of 2 × 2 × 3 codes 0…23, with labels.
fn pair(folder: &Folder, stored: bool) {
    let codes: Vec<u8> = (0..24).collect();
    let x = files::npy("|u1", &[2, 2, 2, 3], &codes);
    let y = files::npy(
        "<i8",
        &[2],
        &[7_i64.to_le_bytes(), 9_i64.to_le_bytes()].concat(),
    );
    npz(&folder.path("d.npz"), stored, &[("x", &x), ("y", &y)]);
}

const DESCRIPTOR: &str = r#"
[input.x]
file = "d.npz"
array = "x"
layout = "NHWC"
scale = 0.5
mean = [0, 1, 2.0]
std = [1.0, 2.0, 4.0]
[labels]
file = "d.npz"
array = "y"
offset = 1
[split]
calibrate = "0..1"
evaluate = "1.."
"#;

#[test]
fn channels_are_normalised_and_moved() {
    for stored in [false, true] {
        let folder = Folder::new();
        pair(&folder, stored);
        let path = folder.text("d.toml", DESCRIPTOR);
        let data = Dataset::open(&path, &[spec("image", &[1, 3, 2, 2])]).unwrap();
        let sample = &data.sample(1).unwrap()[0];
        assert_eq!(sample.shape, [1, 3, 2, 2]);
        let first = [6.0, 7.5, 9.0, 10.5];
        let second = [2.75, 3.5, 4.25, 5.0];
        let third = [1.25, 1.625, 2.0, 2.375];
        assert_eq!(sample.data, [first, second, third].concat());
        assert_eq!(data.labels(), Some(&[8, 10][..]));
        assert_eq!(data.split().evaluate, Some(1..2));
    }
}

#[test]
fn channels_stay_where_the_model_has_them_last() {
    let folder = Folder::new();
    pair(&folder, false);
    let path = folder.text("d.toml", DESCRIPTOR);
    let data = Dataset::open(&path, &[spec("x", &[1, 2, 2, 3])]).unwrap();
    let sample = &data.sample(0).unwrap()[0];
    assert_eq!(sample.data[..6], [0.0, -0.25, -0.25, 1.5, 0.5, 0.125]);
}

#[test]
fn channels_first_is_moved_last() {
    let folder = Folder::new();
    let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
    write_npy(&folder.path("d.npy"), &[1, 3, 2, 2], &values).unwrap();
    let text = "[input.x]\nfile = \"d.npy\"\nlayout = \"NCHW\"\nmean = [0, 4, 8]";
    let data = Dataset::open(&folder.text("d.toml", text), &[spec("x", &[1, 2, 2, 3])]).unwrap();
    let sample = &data.sample(0).unwrap()[0];
    assert_eq!(
        sample.data,
        [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    );
}

#[test]
fn every_numeric_type_is_read() {
    let half = half::f16::from_f32(-2.0).to_le_bytes();
    let cases: [(&str, Vec<u8>); 13] = [
        ("|i1", (-2_i8).to_le_bytes().into()),
        ("<i2", (-2_i16).to_le_bytes().into()),
        (">i2", (-2_i16).to_be_bytes().into()),
        ("<i4", (-2_i32).to_le_bytes().into()),
        ("<i8", (-2_i64).to_le_bytes().into()),
        ("<f2", half.into()),
        ("<f4", (-2.0_f32).to_le_bytes().into()),
        (">f8", (-2.0_f64).to_be_bytes().into()),
        ("|b1", vec![1]),
        ("|u1", vec![1]),
        ("<u2", 1_u16.to_le_bytes().into()),
        ("<u4", 1_u32.to_le_bytes().into()),
        ("<u8", 1_u64.to_le_bytes().into()),
    ];
    let folder = Folder::new();
    for (descr, bytes) in cases {
        let path = folder.path("a.npy");
        std::fs::write(&path, files::npy(descr, &[1], &bytes)).unwrap();
        let wanted = if bytes[0] == 1 { 1 } else { -2 };
        assert_eq!(
            lowbit_data::read_npy_codes(&path).unwrap().data,
            [wanted],
            "{descr}"
        );
        assert_eq!(
            lowbit_data::read_npy(&path).unwrap().data,
            [wanted as f32],
            "{descr}"
        );
    }
}

#[test]
fn column_major_arrays_are_turned() {
    let folder = Folder::new();
    let path = folder.path("f.npy");
    std::fs::write(
        &path,
        fortran("|u1", &[2, 3, 2], &[0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11]),
    )
    .unwrap();
    let codes = lowbit_data::read_npy_codes(&path).unwrap();
    assert_eq!(codes.data, (0..12).collect::<Vec<i64>>());
    let data = Dataset::open(&path, &[spec("x", &[1, 6])]).unwrap();
    assert_eq!(
        data.sample(1).unwrap()[0].data,
        [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    );
}

#[test]
fn arrays_survive_writing() {
    let folder = Folder::new();
    let path = folder.path("w.npy");
    for shape in [&[][..], &[1], &[1, 1, 1]] {
        write_npy(&path, shape, &[-5_i16]).unwrap();
        let codes = lowbit_data::read_npy_codes(&path).unwrap();
        assert_eq!((codes.shape.as_slice(), codes.data), (shape, vec![-5]));
    }
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() % 64, 2);
}

#[test]
fn a_whole_input_is_one_sample_and_a_multiple_is_several() {
    let folder = Folder::new();
    let path = folder.path("b.npy");
    let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
    write_npy(&path, &[4, 6], &values).unwrap();
    let data = Dataset::open(&path, &[spec("x", &[2, 6])]).unwrap();
    assert_eq!((data.len(), data.sample(1).unwrap()[0].data[0]), (2, 12.0));
}

#[test]
fn archives_serve_inputs_by_name() {
    let folder = Folder::new();
    let a = files::npy("|u1", &[2, 2], &[1, 2, 3, 4]);
    let b = files::npy("|u1", &[2, 1], &[5, 6]);
    npz(&folder.path("d.npz"), true, &[("b", &b), ("a", &a)]);
    let inputs = [spec("a", &[1, 2]), spec("b", &[1, 1])];
    let data = Dataset::open(&folder.path("d.npz"), &inputs).unwrap();
    let sample = data.sample(1).unwrap();
    assert_eq!(
        (&sample[0].data[..], &sample[1].data[..]),
        (&[3.0, 4.0][..], &[6.0][..])
    );
    assert!(data.split().evaluate.is_none() && data.labels().is_none());
    let text =
        "[input.a]\nfile = \"d.npz\"\narray = \"a\"\n[input.b]\nfile = \"d.npz\"\narray = \"b\"";
    let described = Dataset::open(&folder.text("d.toml", text), &inputs).unwrap();
    assert_eq!(described.sample(1).unwrap(), sample);
}

#[test]
fn images_are_framed_in_the_order_of_the_table() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("i")).unwrap();
    png(&folder.path("i/a.png"), 4, 2, [10, 20, 30]);
    png(&folder.path("i/b.png"), 2, 6, [40, 50, 60]);
    folder.text("l.csv", "file,label\nb.png,1\na.png,0\n");
    let text = "[input.x]\nimages = \"i\"\nresize = 4\ncrop = 3\nchannels = \"BGR\"\nscale = 2\n[labels]\ncsv = \"l.csv\"\ncolumn = \"label\"";
    let data = Dataset::open(&folder.text("d.toml", text), &[spec("x", &[1, 3, 3, 3])]).unwrap();
    assert_eq!(data.labels(), Some(&[1, 0][..]));
    assert_eq!(data.sample(0).unwrap()[0].data[..3], [120.0, 100.0, 80.0]);
    assert_eq!(data.sample(1).unwrap()[0].data[..3], [60.0, 40.0, 20.0]);
}

#[test]
fn jpeg_codes_are_pillows() {
    let row = [44, 194, 61, 53, 194, 82, 69, 193, 105, 81, 192, 123];
    for jpeg in files::JPEGS {
        let folder = Folder::new();
        std::fs::write(folder.path("a.jpg"), jpeg).unwrap();
        let path = folder.text("d.toml", "[input.x]\nimages = \".\"");
        let data = Dataset::open(&path, &[spec("x", &[1, 18, 21, 3])]).unwrap();
        let codes = data.sample(0).unwrap().remove(0).data;
        assert_eq!(codes[(5 * 21 + 4) * 3..][..12], row.map(|code| code as f32));
        let weighted = codes
            .iter()
            .enumerate()
            .map(|(i, &code)| (i % 251) as u64 * code as u64);
        assert_eq!(weighted.sum::<u64>(), 17287987);
    }
}

#[test]
fn the_hash_is_that_of_the_list_that_sha256sum_prints() {
    let folder = Folder::new();
    std::fs::write(folder.path("e.npy"), files::npy("|u1", &[1, 1], &[3])).unwrap();
    let hash = || {
        let data = Dataset::open(&folder.path("e.npy"), &[spec("x", &[1, 1])]).unwrap();
        data.sha256().unwrap().unwrap()
    };
    let first = hash();
    assert_eq!(
        first,
        "bd994660c6753adae3e092fde5be37aeae13cceae1ee492a4375cd98f2d3f4c2"
    );
    std::fs::write(folder.path("e.npy"), files::npy("|u1", &[1, 1], &[4])).unwrap();
    assert_ne!(first, hash());
}

#[test]
fn random_samples_repeat() {
    let inputs = [spec("a", &[1, 2]), spec("b", &[1, 2])];
    let data = Dataset::random(&inputs, 3, 5);
    assert_eq!((data.len(), data.split().calibrate.clone()), (5, 0..5));
    assert_eq!(
        data.sample(4).unwrap(),
        Dataset::random(&inputs, 3, 9).sample(4).unwrap()
    );
    assert_eq!(data.sha256().unwrap(), None);
}

#[test]
fn bad_descriptors_name_key_and_remedy() {
    let folder = Folder::new();
    pair(&folder, false);
    let cases = [
        ("not toml [", "TOML"),
        (
            "[input.x]\nfile = \"d.npz\"\narray = \"x\"\nscael = 2",
            "scael",
        ),
        ("[input.x]\nfile = \"d.npz\"\narray = \"z\"", "`x`, `y`"),
        ("[input.x]\nfile = \"gone.npz\"\narray = \"x\"", "gone.npz"),
        ("[input.x]\nfile = \"d.npz\"\nimages = \"i\"", "keep one"),
        ("[input.x]\narray = \"x\"", "neither"),
        ("[input.x]\nfile = \"d.npz\"\nresize = 4", "resize"),
        ("[input.x]\nfile = \"d.npz\"\narray = \"x\"\nstd = 0", "std"),
        (
            "[input.x]\nfile = \"d.npz\"\narray = \"x\"\nscale = inf",
            "scale",
        ),
        (
            "[input.x]\nfile = \"d.npz\"\narray = \"x\"\nlayout = \"HWC\"",
            "NHWC",
        ),
        ("[input.other]\nfile = \"d.npz\"\narray = \"x\"", "`image`"),
        ("[input.x]\nimages = \"nowhere\"", "nowhere"),
        ("[input.x]\nfile = \"d.npz\"\narray = \"x\"", "layout"),
        (
            "[input.x]\nfile = \"d.npz\"\narray = \"x\"\nlayout = \"NHWC\"\nmean = [1, 2]",
            "2 numbers",
        ),
        ("", "input"),
    ];
    for (text, part) in cases {
        let message = fault(
            &folder.text("d.toml", text),
            &[spec("image", &[1, 3, 2, 2])],
        );
        assert!(
            message.contains(part),
            "{text:?} gave {message:?}, without {part:?}"
        );
    }
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let path = folder.path("s.npy");
    write_npy(&path, &[2, 4, 4, 1], &[0.0; 32]).unwrap();
    for shape in [&[1, 3, 4, 4][..], &[1, 5, 5, 1]] {
        let message = fault(&path, &[spec("x", shape)]);
        assert!(
            message.contains("[4, 4, 1]") && message.contains("`x`"),
            "{message}"
        );
    }
    write_npy(&path, &[0, 4], &[0.0; 0]).unwrap();
    assert!(fault(&path, &[spec("x", &[1, 4])]).contains("no sample"));
    write_npy(&path, &[1, 2], &[1.0, f32::NAN]).unwrap();
    assert!(fault(&path, &[spec("x", &[1, 2])]).contains("element 1"));
    write_npy(&path, &[1, 2], &[1.0, 2.0]).unwrap();
    assert!(fault(&path, &[spec("x", &[1, 1]), spec("y", &[1, 1])]).contains("several inputs"));
}

#[test]
fn labels_must_be_as_many_as_samples_and_whole() {
    let folder = Folder::new();
    write_npy(&folder.path("x.npy"), &[2, 1], &[1.0_f32, 2.0]).unwrap();
    write_npy(&folder.path("y.npy"), &[3], &[0_i32, 1, 2]).unwrap();
    let text = "[input.x]\nfile = \"x.npy\"\n[labels]\n";
    let inputs = [spec("x", &[1, 1])];
    let message = fault(
        &folder.text("d.toml", &format!("{text}file = \"y.npy\"")),
        &inputs,
    );
    assert!(
        message.contains('3') && message.contains("2 samples"),
        "{message}"
    );
    folder.text("l.csv", "label\n1\ncat\n");
    let csv = |column: &str| format!("{text}csv = \"l.csv\"\ncolumn = \"{column}\"");
    assert!(fault(&folder.text("d.toml", &csv("label")), &inputs).contains("line 3"));
    assert!(fault(&folder.text("d.toml", &csv("class")), &inputs).contains("`label`"));
    write_npy(&folder.path("y.npy"), &[2], &[0.0_f32, 1.5]).unwrap();
    assert!(
        fault(
            &folder.text("d.toml", &format!("{text}file = \"y.npy\"")),
            &inputs
        )
        .contains("whole")
    );
}

#[test]
fn hostile_arrays_are_refused_before_memory_is_taken() {
    let folder = Folder::new();
    let path = folder.path("h.npy");
    let inputs = [spec("x", &[1, 4])];
    let cases = [
        (files::npy("<f4", &[1 << 40, 4], &[0; 16]), "cut short"),
        (
            files::npy("<f4", &[usize::MAX, usize::MAX], &[0; 16]),
            "impossible",
        ),
        (files::npy("<f4", &[2, 4], &[0; 31]), "cut short"),
        (files::npy("|O", &[1, 4], &[0; 32]), "pickled"),
        (files::npy("<U2", &[1, 4], &[0; 32]), "<U2"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff".to_vec(), "header"),
        (b"\x93NUMPY\x01\0\xff\0{'descr'".to_vec(), "header"),
        (b"hello".to_vec(), "header"),
        (Vec::new(), "header"),
    ];
    for (bytes, part) in cases {
        std::fs::write(&path, bytes).unwrap();
        let message = fault(&path, &inputs);
        assert!(
            message.contains(part) && message.contains("h.npy"),
            "{message}"
        );
    }
}

#[test]
fn truncated_archives_are_refused_at_every_length() {
    let folder = Folder::new();
    for stored in [false, true] {
        pair(&folder, stored);
        let whole = std::fs::read(folder.path("d.npz")).unwrap();
        for length in 0..whole.len() {
            std::fs::write(folder.path("t.npz"), &whole[..length]).unwrap();
            let message = fault(&folder.path("t.npz"), &[spec("x", &[1, 2, 2, 3])]);
            assert!(message.contains("t.npz"), "{message}");
        }
    }
}

#[test]
fn broken_images_are_named() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("i")).unwrap();
    png(&folder.path("i/a.png"), 4, 4, [1, 2, 3]);
    let text = "[input.x]\nimages = \"i\"\ncrop = 4";
    let path = folder.text("d.toml", text);
    let inputs = [spec("x", &[1, 4, 4, 3])];
    assert!(Dataset::open(&path, &inputs).unwrap().sample(0).is_ok());
    let whole = std::fs::read(folder.path("i/a.png")).unwrap();
    std::fs::write(folder.path("i/a.png"), &whole[..whole.len() / 2]).unwrap();
    assert!(fault(&path, &inputs).contains("a.png"));
    png(&folder.path("i/a.png"), 3, 4, [1, 2, 3]);
    assert!(fault(&path, &inputs).contains("crop"));
    let greyscale = fault(&path, &[spec("x", &[1, 1, 4, 4])]);
    assert!(greyscale.contains("[4, 4, 3]"), "{greyscale}");
    folder.text("i/labels.csv", "file\nb.png\n");
    assert!(fault(&path, &inputs).contains("b.png"));
}

#[test]
fn folders_of_tensors_are_read() {
    let folder = Folder::new();
    let inputs = [spec("x", &[1, 2])];
    assert!(fault(folder.root(), &inputs).contains("input_0.pb"));
    for (n, value) in [(10, 5.0_f32), (2, 3.0)] {
        let set = folder.path(&format!("test_data_set_{n}"));
        std::fs::create_dir(&set).unwrap();
        let values = [value.to_le_bytes(), 1.0_f32.to_le_bytes()].concat();
        let proto = [&[0x08, 1, 0x08, 2, 0x10, 1, 0x4a, 8][..], &values].concat();
        std::fs::write(set.join("input_0.pb"), proto).unwrap();
    }
    let data = Dataset::open(folder.root(), &inputs).unwrap();
    assert_eq!(data.len(), 2);
    assert_eq!(data.sample(0).unwrap()[0].data, [3.0, 1.0]);
    std::fs::write(folder.path("test_data_set_2/input_1.pb"), b"").unwrap();
    assert!(fault(folder.root(), &inputs).contains("input_1.pb"));
}

#[test]
fn other_paths_are_refused() {
    let folder = Folder::new();
    let inputs = [spec("x", &[1])];
    assert!(fault(&folder.path("gone.toml"), &inputs).contains("gone.toml"));
    assert!(fault(&folder.text("d.json", "{}"), &inputs).contains(".json"));
    assert!(fault(&folder.path("gone"), &inputs).contains("gone"));
}

/// Bytes with some of them changed, and perhaps cut short.
fn damaged(
    whole: &[u8],
    changes: &[(prop::sample::Index, u8)],
    cut: prop::sample::Index,
) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (place, byte) in changes {
        *place.get_mut(&mut bytes) = *byte;
    }
    let keep = cut.index(2 * bytes.len());
    bytes.truncate(keep);
    bytes
}

proptest! {
    /// Damaged files end in samples or an error, never in a crash.
    #[test]
    fn damaged_files_never_crash(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        stored in any::<bool>(),
    ) {
        let folder = Folder::new();
        pair(&folder, stored);
        let inputs = [spec("x", &[1, 2, 2, 3])];
        let tensor = [&[0x08, 1, 0x08, 2, 0x10, 1, 0x4a, 8][..], &[0; 8]].concat();
        let array = files::npy("<f4", &[1, 2, 2, 3], &[0; 48]);
        let archive = std::fs::read(folder.path("d.npz")).unwrap();
        for (name, whole) in [("a.npy", array), ("a.npz", archive), ("input_0.pb", tensor), ("a.toml", DESCRIPTOR.into())] {
            std::fs::write(folder.path(name), damaged(&whole, &changes, cut)).unwrap();
            let path = if name == "input_0.pb" { folder.root().to_path_buf() } else { folder.path(name) };
            let _ = Dataset::open(&path, &inputs).and_then(|data| data.sample(0));
        }
    }

    #[test]
    fn damaged_images_never_crash(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        which in 0..files::JPEGS.len() + 1,
    ) {
        let folder = Folder::new();
        png(&folder.path("a.png"), 9, 7, [1, 2, 3]);
        let whole = files::JPEGS.get(which).map_or_else(|| std::fs::read(folder.path("a.png")).unwrap(), |jpeg| jpeg.to_vec());
        std::fs::write(folder.path("a.png"), damaged(&whole, &changes, cut)).unwrap();
        let path = folder.text("d.toml", "[input.x]\nimages = \".\"\nresize = 8\ncrop = 8");
        let _ = Dataset::open(&path, &[spec("x", &[1, 8, 8, 3])]).and_then(|data| data.sample(0));
    }
}
