//! Samples against the reference scorer's, where the model zoo and an interpreter for the scorer are there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use lowbit_data::{Array, Dataset, Dtype, InputSpec, read_npy};

/// Writes the samples that the reference makes of a descriptor, and prints the model's input, counts and the sum of labels.
const SCORE: &str = "
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, score
data = score.Data(sys.argv[2], sys.argv[3])
np.save(sys.argv[4], np.stack([data.sample(int(i)) for i in sys.argv[5:]]))
print(data.name, data.count, 0 if data.labels is None else int(data.labels.sum()), len(data.calibrate), len(data.evaluate), *data.shape)
";

/// Paints images of many sizes, modes and formats into the folder.
const PAINT: &str = "
import sys, numpy as np
from PIL import Image
rng, rows = np.random.default_rng(1), []
def save(name, image, **options):
    image.save(f'{sys.argv[1]}/{name}', **options)
    rows.append(name)
def noise(w, h):
    coarse = Image.fromarray(rng.integers(0, 256, (h // 9 + 2, w // 9 + 2, 3), np.uint8)).resize((w, h), Image.BICUBIC)
    return Image.fromarray((np.asarray(coarse) ^ rng.integers(0, 16, (h, w, 3), np.uint8)).astype(np.uint8))
for w, h in ((256, 256), (500, 375), (375, 500), (257, 256), (1023, 300), (97, 61), (3, 2), (640, 481), (255, 1000)):
    save(f'{w}x{h}.png', noise(w, h))
image = noise(421, 333)
for mode in ('L', 'LA', 'RGBA', 'P', '1'):
    save(f'{mode}.png', image.convert(mode))
save('a.bmp', image)
for mode in ('L', 'CMYK', 'RGB'):
    save(f'{mode}.jpg', image.convert(mode), quality=80)
for s in (0, 1, 2):
    save(f's{s}.jpg', image, subsampling=s, quality=95)
save('progressive.jpeg', image, progressive=True)
save('restart.jpg', image, restart_marker_blocks=5)
open(f'{sys.argv[1]}/labels.csv', 'w').write('file,label\\n' + ''.join(f'{r},{i}\\n' for i, r in enumerate(rows)))
print(len(rows))
";

const DESCRIPTOR: &str = "
[input.x]
images = \".\"
resize = 256
crop = 224
scale = 0.017
mean = [1.9, 2.1, 1.7]
std = [0.9, 1.1, 1.3]
[labels]
csv = \"labels.csv\"
column = \"label\"
offset = 1
[split]
calibrate = \"0..5\"
evaluate = \"5..\"
";

struct Reference {
    python: OsString,
    zoo: PathBuf,
    folder: tempfile::TempDir,
}

impl Reference {
    /// The scorer; `None`, with a line that says so, where it is not there.
    fn find() -> Option<Self> {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
        let shared = std::env::var_os("LOWBIT_SHARED").map_or(default, PathBuf::from);
        let zoo = shared.join("zoo");
        if !zoo.join("score.py").is_file() {
            println!("skipped: there is no model zoo at {}", zoo.display());
            return None;
        }
        let python = std::env::var_os("LOWBIT_PYTHON");
        if python.is_none() {
            println!(
                "skipped: LOWBIT_PYTHON names no interpreter with onnx, onnxruntime, numpy and pillow"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        python.map(|python| Self {
            python,
            zoo,
            folder,
        })
    }

    fn run<S: AsRef<OsStr>>(&self, script: &str, arguments: impl IntoIterator<Item = S>) -> String {
        let mut command = Command::new(&self.python);
        let done = command
            .args(["-c", script])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    }

    /// Checks samples, labels and split of a descriptor for a zoo model.
    fn compare(&self, descriptor: &Path, model: &str, indices: &[usize]) {
        let out = self.folder.path().join("samples.npy");
        let model = self.zoo.join(format!("models/{model}.onnx"));
        let paths = [&self.zoo, descriptor, &model, &out].map(|path| path.as_os_str().to_owned());
        let indices_text = indices.iter().map(|i| i.to_string().into());
        let printed = self.run(SCORE, paths.into_iter().chain(indices_text));
        let (name, numbers) = printed.split_once(' ').unwrap();
        let numbers: Vec<usize> = numbers
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        let spec = InputSpec {
            name: name.into(),
            shape: numbers[4..].to_vec(),
            dtype: Dtype::F32,
        };
        let data = Dataset::open(descriptor, &[spec]).unwrap();
        assert_eq!(counts(&data), numbers[..4], "{}", descriptor.display());
        same_samples(&data, indices, &read_npy(&out).unwrap(), descriptor);
    }
}

fn counts(data: &Dataset) -> [usize; 4] {
    let labels: i64 = data.labels().unwrap_or_default().iter().sum();
    let evaluate = data.split().evaluate.as_ref().unwrap().len();
    [
        data.len(),
        labels as usize,
        data.split().calibrate.len(),
        evaluate,
    ]
}

fn same_samples(data: &Dataset, indices: &[usize], wanted: &Array, descriptor: &Path) {
    let size = wanted.data.len() / indices.len();
    for (&index, wanted) in indices.iter().zip(wanted.data.chunks_exact(size)) {
        let ours = data.sample(index).unwrap().remove(0).data;
        assert!(
            ours == wanted,
            "{}: sample {index} differs from the reference",
            descriptor.display()
        );
    }
}

#[test]
fn samples_of_the_zoo_equal_the_reference() {
    let Some(reference) = Reference::find() else {
        return;
    };
    let entries = std::fs::read_dir(&reference.zoo).unwrap();
    let mut count = 0;
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ending| ending == "toml") {
            let model = path.file_stem().unwrap().to_str().unwrap();
            reference.compare(&path, model, &[0, 3, 50, 99, 101, 180, 255]);
            count += 1;
        }
    }
    assert!(count > 0, "no descriptor in {}", reference.zoo.display());
}

#[test]
fn images_of_every_size_mode_and_format_equal_the_reference() {
    let Some(reference) = Reference::find() else {
        return;
    };
    let images = reference.folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let painted = reference.run(PAINT, [&images]);
    let indices: Vec<usize> = (0..painted.trim().parse().unwrap()).collect();
    let descriptor = images.join("images.toml");
    for text in [
        DESCRIPTOR.to_string(),
        DESCRIPTOR.replace("resize", "channels = \"BGR\"\nresize"),
    ] {
        std::fs::write(&descriptor, text).unwrap();
        reference.compare(&descriptor, "mobilenetv2_1.0_224_qat_deq", &indices);
    }
}
