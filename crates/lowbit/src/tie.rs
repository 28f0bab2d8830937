//! `--tie`: which layers share their formats.

use lowbit_ir::Graph;
use lowbit_passes::sensitivity::{layers, residual};
use lowbit_report::{SensitiveChoice, SensitiveLayer, Sensitivity, Tie};

use crate::Error;

/// Layers that share the formats of weights and inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tying {
    /// Layers whose outputs one addition sums.
    Residual,
}

impl Tying {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Residual];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Residual => "residual",
        }
    }

    /// One by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Ties layers of a table, and leaves them the choices that all of a group have.
    ///
    /// # Errors
    /// Layers that are tied have no format in common.
    pub(crate) fn bind(self, table: &mut Sensitivity, graph: &Graph) -> Result<(), Error> {
        let all = layers(graph);
        let groups = match self {
            Self::Residual => residual(graph, &all),
        };
        for first in 0..all.len() {
            let members = || (0..all.len()).filter(|&l| groups[l] == Some(first));
            let named = |l: usize| table.layers.iter().position(|t| t.name == all[l].name);
            let members: Vec<usize> = members().filter_map(named).collect();
            if members.len() > 1 {
                share(&mut table.layers, &members)?;
            }
        }
        Ok(())
    }
}

/// Ties some layers.
fn share(layers: &mut [SensitiveLayer], members: &[usize]) -> Result<(), Error> {
    let same = |a: &SensitiveChoice, b: &SensitiveChoice| {
        (&a.weight, &a.activation) == (&b.weight, &b.activation)
    };
    let common = |c: &&SensitiveChoice| {
        let mut others = members.iter().map(|&l| &layers[l].choices);
        others.all(|choices| choices.iter().any(|o| same(o, c)))
    };
    let first = &layers[members[0]];
    let tie = Tie::Name(first.name.clone());
    let shared: Vec<SensitiveChoice> = first.choices.iter().filter(common).cloned().collect();
    if shared.is_empty() {
        let names = members.iter().map(|&l| format!("'{}'", layers[l].name));
        let names: Vec<String> = names.collect();
        let message = format!(
            "layers {} are tied, and there is no format that all of them can have",
            names.join(", ")
        );
        return Err(Error::Infeasible(message.into()));
    }
    for &l in members {
        let own = std::mem::take(&mut layers[l].choices);
        let find = |s: &SensitiveChoice| own.iter().find(|c| same(c, s)).cloned();
        layers[l].choices = shared.iter().filter_map(find).collect();
        layers[l].tie = Some(tie.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, formats: &[&str]) -> SensitiveLayer {
        let choice = |weight: &&str| SensitiveChoice {
            weight: weight.to_string(),
            activation: "int8".into(),
            loss: name.len() as f64,
            ..SensitiveChoice::default()
        };
        SensitiveLayer {
            name: name.into(),
            choices: formats.iter().map(choice).collect(),
            ..SensitiveLayer::default()
        }
    }

    #[test]
    fn tied_layers_keep_the_choices_that_all_have_in_one_order() {
        let mut layers = [
            layer("a", &["int8", "int4", "int2"]),
            layer("b", &["int8"]),
            layer("long", &["int2", "int8"]),
        ];
        share(&mut layers, &[0, 2]).unwrap();
        let weights = |l: &SensitiveLayer| -> Vec<String> {
            l.choices.iter().map(|c| c.weight.clone()).collect()
        };
        for l in [&layers[0], &layers[2]] {
            assert_eq!(weights(l), ["int8", "int2"]);
            assert_eq!(l.tie, Some(Tie::Name("a".into())));
            assert!(l.choices.iter().all(|c| c.loss == l.name.len() as f64));
        }
        assert_eq!(layers[1].tie, None);
    }

    #[test]
    fn layers_without_a_common_format_are_named() {
        let mut layers = [layer("a", &["int8"]), layer("b", &["int4"])];
        let error = share(&mut layers, &[0, 1]).unwrap_err();
        assert!(matches!(error, Error::Infeasible(_)));
        assert!(error.to_string().contains("'a', 'b'"), "{error}");
    }
}
