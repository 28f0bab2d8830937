//! What is aimed at: largest drop in percentage points, largest disagreement in a hundred.

/// An aim of one cell; the second figure is missing where a model gives no classes.
pub(super) type Aim = (f64, Option<f64>);

const fn both(drop: f64, disagreement: f64) -> Option<Aim> {
    Some((drop, Some(disagreement)))
}

const fn alone(drop: f64) -> Option<Aim> {
    Some((drop, None))
}

/// By model, in the order of the budgets.
const AIMS: [(&str, [Option<Aim>; 5]); 11] = [
    (
        "resnet8_cifar10",
        [
            both(0.2, 2.0),
            both(0.3, 3.0),
            both(0.4, 4.5),
            both(1.2, 11.0),
            both(1.6, 10.0),
        ],
    ),
    (
        "resnet20_cifar10",
        [
            both(0.2, 1.3),
            both(0.2, 1.8),
            both(0.2, 3.2),
            both(0.6, 9.0),
            both(1.2, 7.0),
        ],
    ),
    (
        "resnet56_cifar10",
        [
            both(0.2, 1.3),
            both(0.2, 2.0),
            both(0.3, 3.5),
            both(1.5, 9.0),
            both(1.4, 8.0),
        ],
    ),
    (
        "mobilenetv1_0.25_224",
        [both(0.7, 7.0), both(1.0, 11.0), both(2.0, 20.0), None, None],
    ),
    (
        "mobilenetv2_1.0_224_qat_deq",
        [both(0.5, 3.75), both(1.0, 5.0), both(2.0, 6.0), None, None],
    ),
    (
        "squeezenet1.0_deepcomp",
        [both(0.5, 7.0), both(1.0, 10.0), both(2.0, 15.0), None, None],
    ),
    (
        "dscnn_kws",
        [
            both(0.4, 1.0),
            both(0.6, 1.6),
            both(0.9, 2.7),
            both(3.5, 8.5),
            both(1.7, 6.0),
        ],
    ),
    (
        "mobilenetv1_0.25_vww96",
        [
            both(0.7, 0.7),
            both(1.3, 1.3),
            both(1.3, 2.0),
            both(5.0, 8.0),
            both(1.3, 3.0),
        ],
    ),
    (
        "autoencoder_ad01",
        [alone(0.6), alone(0.8), alone(0.8), None, None],
    ),
    (
        "mnist_cnn",
        [
            both(0.05, 0.05),
            both(0.05, 0.1),
            both(0.05, 0.1),
            both(0.05, 0.15),
            both(0.15, 0.3),
        ],
    ),
    (
        "vit_cifar10",
        [
            both(0.2, 1.6),
            both(0.2, 2.0),
            both(0.2, 2.4),
            both(1.5, 8.5),
            both(0.2, 4.2),
        ],
    ),
];

/// The aim of a model at a budget.
pub(super) fn of(model: &str, budget: usize) -> Option<Aim> {
    AIMS.iter().find(|a| a.0 == model)?.1[budget]
}
