use std::collections::{BTreeMap, BTreeSet};

use lowbit_report::{SensitiveLayer, Sensitivity, Tie};

use super::budget::{Budget, Limits, step_bytes, within};

/// A table that no plan can be made from; names the layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There is nothing to choose.
    #[error("the sensitivity file has no layers")]
    Empty,
    /// A layer without choices.
    #[error("layer '{0}' has no choices; give at least one")]
    NoChoice(String),
    /// Two layers of one name.
    #[error("two layers are named '{0}'; names must differ")]
    Twice(String),
    /// A number that is none.
    #[error(
        "layer '{layer}', choice {choice}: {field} is {value}; only finite numbers can be added up"
    )]
    NotFinite {
        /// Name of the layer.
        layer: String,
        /// Index of the choice.
        choice: usize,
        /// `loss`, or the field of a cost.
        field: &'static str,
        /// What was found.
        value: String,
    },
    /// A cost that a budget needs is not there.
    #[error(
        "layer '{layer}', choice {choice}: {budget} needs {field}, which is missing or not understood"
    )]
    Missing {
        /// Name of the layer.
        layer: String,
        /// Index of the choice.
        choice: usize,
        /// The budget.
        budget: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A budget of memory without a schedule.
    #[error(
        "--ram needs the steps of the schedule: give 'steps' with the bytes that live during each"
    )]
    NoSteps,
    /// Bytes that cannot be added up.
    #[error("step '{0}': bytes is {1}; only finite numbers can be added up")]
    StepBytes(String, String),
    /// A choice that names a step that is not there.
    #[error("layer '{layer}', choice {choice}: step_bytes names '{step}', which is no step")]
    NoStep {
        /// Name of the layer.
        layer: String,
        /// Index of the choice.
        choice: usize,
        /// The name.
        step: String,
    },
    /// Tied layers with different numbers of choices.
    #[error("layers '{0}' and '{1}' are tied but have different numbers of choices")]
    Tied(String, String),
    /// A pin that names nothing.
    #[error("'{0}' is pinned, but there is no such layer; the layers are {1}")]
    NoLayer(String, String),
    /// A pin to a format that the layer cannot have.
    #[error("layer '{layer}' is pinned to {format}, which it cannot have; it can have {known}")]
    NoFormat {
        /// Name of the layer.
        layer: String,
        /// The format.
        format: String,
        /// Formats that it can have.
        known: String,
    },
    /// Pins of layers that are tied, with no format in common.
    #[error(
        "layers {0} are tied, and their pins leave no format that all of them can have; pin them alike, or give up the tie"
    )]
    TiedPins(String),
    /// Pins and readers that contradict each other.
    #[error(
        "layer '{0}' has no choice left: its pins, its ties and the layers that read the same tensor contradict each other"
    )]
    Contradiction(String),
}

impl TableError {
    /// Whether the table is sound, and what is asked of it contradicts itself.
    pub fn is_contradiction(&self) -> bool {
        matches!(self, Self::TiedPins(_) | Self::Contradiction(_))
    }
}

/// Narrows the choices of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// Name of the layer.
    pub layer: String,
    /// Format that the weights must have.
    pub weight: Option<String>,
    /// Format that the input must have.
    pub activation: Option<String>,
}

/// Choices of layers that are tied, as one.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Indices of the layers.
    pub(crate) layers: Vec<usize>,
    /// What is left to choose from.
    pub(crate) options: Vec<Choice>,
}

/// A choice of a group.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// Index in the table.
    pub(crate) index: usize,
    /// Sum of the losses of the group's layers.
    pub(crate) loss: f64,
    /// Sum of their costs, by row.
    pub(crate) costs: Vec<f64>,
}

/// A limit of a sum of costs: a budget, or what lives during one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) budget: Budget,
    /// The step of the table that a budget of memory bounds.
    pub(crate) step: Option<usize>,
    /// In units of the costs; what every plan costs is taken off.
    pub(crate) limit: f64,
}

impl Row {
    fn cost(&self, table: &Sensitivity, layer: &SensitiveLayer, choice: usize) -> f64 {
        let choice = &layer.choices[choice];
        match self.step {
            Some(step) => step_bytes(&table.steps[step], choice),
            None => self
                .budget
                .cost(layer, choice)
                .expect("the table is verified"),
        }
    }
}

/// Layers whose activation formats must agree.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Group and layer of each.
    pub(crate) members: Vec<(usize, usize)>,
}

/// The integer program of a table and limits.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(crate) groups: Vec<Group>,
    pub(crate) rows: Vec<Row>,
    pub(crate) links: Vec<Link>,
    /// Activation format of each layer's choices, as a number.
    pub(crate) activations: Vec<Vec<usize>>,
}

impl Problem {
    /// Checks a table and writes down its program.
    ///
    /// # Errors
    /// The layer that is at fault, and why.
    pub fn new(table: &Sensitivity, limits: &Limits, pins: &[Pin]) -> Result<Self, TableError> {
        verify(table, limits)?;
        Self::with_rows(table, rows(table, limits, true), pins)
    }

    /// The program of rows of a table that was verified.
    pub(crate) fn with_rows(
        table: &Sensitivity,
        rows: Vec<Row>,
        pins: &[Pin],
    ) -> Result<Self, TableError> {
        let allowed = allowed(table, pins)?;
        let mut groups: Vec<Group> = Vec::new();
        for layers in tied(table)? {
            groups.push(group(table, &rows, &allowed, layers)?);
        }
        let mut problem = Self {
            links: links(table, &groups),
            groups,
            rows,
            activations: activations(table),
        };
        problem.agree(table)?;
        Ok(problem)
    }

    /// The index of the choice of each layer, for one of each group.
    pub(crate) fn spread(&self, picks: &[usize]) -> Vec<usize> {
        let mut choice = vec![0; self.activations.len()];
        for (group, &pick) in self.groups.iter().zip(picks) {
            for &layer in &group.layers {
                choice[layer] = group.options[pick].index;
            }
        }
        choice
    }

    /// The option of each group that a plan takes; the first where it takes none of those that are left.
    pub(crate) fn picks(&self, choice: &[usize]) -> Vec<usize> {
        let pick = |g: &Group| {
            let index = choice[g.layers[0]];
            g.options.iter().position(|c| c.index == index).unwrap_or(0)
        };
        self.groups.iter().map(pick).collect()
    }

    /// The sum of losses.
    pub(crate) fn loss(&self, picks: &[usize]) -> f64 {
        let each = self.groups.iter().zip(picks);
        each.map(|(g, &p)| g.options[p].loss).sum()
    }

    /// The sums of costs, by row.
    pub(crate) fn costs(&self, picks: &[usize]) -> Vec<f64> {
        let row = |r: usize| {
            let each = self.groups.iter().zip(picks);
            each.map(|(g, &p)| g.options[p].costs[r]).sum()
        };
        (0..self.rows.len()).map(row).collect()
    }

    /// Whether a plan keeps limits and links.
    pub(crate) fn admits(&self, picks: &[usize]) -> bool {
        let costs = self.costs(picks);
        let kept = costs
            .iter()
            .zip(&self.rows)
            .all(|(&c, r)| within(c, r.limit));
        kept && self.links.iter().all(|link| {
            let mut formats = link.members.iter().map(|&(group, layer)| {
                self.activations[layer][self.groups[group].options[picks[group]].index]
            });
            let first = formats.next();
            formats.all(|f| Some(f) == first)
        })
    }

    /// The number of choices.
    fn size(&self) -> usize {
        self.groups.iter().map(|g| g.options.len()).sum()
    }

    /// Removes choices whose activation format another reader of the same tensor cannot have, until none is left.
    fn agree(&mut self, table: &Sensitivity) -> Result<(), TableError> {
        loop {
            let before = self.size();
            for link in &self.links {
                let formats = |&(group, layer): &(usize, usize)| -> BTreeSet<usize> {
                    let options = self.groups[group].options.iter();
                    options.map(|c| self.activations[layer][c.index]).collect()
                };
                let common = link.members.iter().map(formats).reduce(|a, b| &a & &b);
                let common = common.unwrap_or_default();
                for &(group, layer) in &link.members {
                    let formats = &self.activations[layer];
                    let options = &mut self.groups[group].options;
                    options.retain(|c| common.contains(&formats[c.index]));
                }
            }
            if let Some(g) = self.groups.iter().find(|g| g.options.is_empty()) {
                return Err(TableError::Contradiction(
                    table.layers[g.layers[0]].name.clone(),
                ));
            }
            if before == self.size() {
                return Ok(());
            }
        }
    }
}

/// The rows of limits; steps that can break theirs under no plan may be left out.
pub(crate) fn rows(table: &Sensitivity, limits: &Limits, only_tight: bool) -> Vec<Row> {
    let whole = |(budget, limit): (Budget, f64)| Row {
        budget,
        step: None,
        limit: limit * budget.unit(&table.layers) - budget.fixed(table),
    };
    let sums = limits.given().filter(|l| l.0 != Budget::Ram);
    let mut rows: Vec<Row> = sums.map(whole).collect();
    let Some(ram) = limits.ram else { return rows };
    for (i, step) in table.steps.iter().enumerate() {
        let most = |l: &SensitiveLayer| {
            let all = l.choices.iter().map(|c| step_bytes(step, c));
            all.fold(f64::NEG_INFINITY, f64::max)
        };
        let most: f64 = table.layers.iter().map(most).sum();
        if !only_tight || !within(step.bytes + most, ram) {
            rows.push(Row {
                budget: Budget::Ram,
                step: Some(i),
                limit: ram - step.bytes,
            });
        }
    }
    rows
}

fn verify(table: &Sensitivity, limits: &Limits) -> Result<(), TableError> {
    if table.layers.is_empty() {
        return Err(TableError::Empty);
    }
    if limits.ram.is_some() {
        verify_steps(table)?;
    }
    let mut names = std::collections::HashSet::new();
    for layer in &table.layers {
        if layer.choices.is_empty() {
            return Err(TableError::NoChoice(layer.name.clone()));
        }
        if !names.insert(&layer.name) {
            return Err(TableError::Twice(layer.name.clone()));
        }
        verify_layer(layer, limits)?;
    }
    Ok(())
}

fn verify_steps(table: &Sensitivity) -> Result<(), TableError> {
    if table.steps.is_empty() {
        return Err(TableError::NoSteps);
    }
    if let Some(s) = table.steps.iter().find(|s| !s.bytes.is_finite()) {
        return Err(TableError::StepBytes(s.name.clone(), s.bytes.to_string()));
    }
    let names: BTreeSet<&str> = table.steps.iter().map(|s| s.name.as_str()).collect();
    for layer in &table.layers {
        for (choice, c) in layer.choices.iter().enumerate() {
            for (step, &bytes) in &c.step_bytes {
                finite(layer, choice, "step_bytes", bytes)?;
                if !names.contains(step.as_str()) {
                    return Err(TableError::NoStep {
                        layer: layer.name.clone(),
                        choice,
                        step: step.clone(),
                    });
                }
            }
        }
    }
    Ok(())
}

fn verify_layer(layer: &SensitiveLayer, limits: &Limits) -> Result<(), TableError> {
    for (choice, c) in layer.choices.iter().enumerate() {
        finite(layer, choice, "loss", c.loss)?;
        for (budget, _) in limits.given().filter(|l| l.0 != Budget::Ram) {
            let field = budget.field();
            let Some(cost) = budget.cost(layer, c) else {
                return Err(TableError::Missing {
                    layer: layer.name.clone(),
                    choice,
                    budget: budget.flag(),
                    field,
                });
            };
            finite(layer, choice, field, cost)?;
        }
    }
    Ok(())
}

fn finite(
    layer: &SensitiveLayer,
    choice: usize,
    field: &'static str,
    x: f64,
) -> Result<(), TableError> {
    if x.is_finite() {
        return Ok(());
    }
    Err(TableError::NotFinite {
        layer: layer.name.clone(),
        choice,
        field,
        value: x.to_string(),
    })
}

/// Which choices of each layer the pins leave.
fn allowed(table: &Sensitivity, pins: &[Pin]) -> Result<Vec<Vec<bool>>, TableError> {
    let mut allowed: Vec<Vec<bool>> = table
        .layers
        .iter()
        .map(|l| vec![true; l.choices.len()])
        .collect();
    for pin in pins {
        let Some(i) = table.layers.iter().position(|l| l.name == pin.layer) else {
            let names: Vec<&str> = table.layers.iter().map(|l| l.name.as_str()).collect();
            return Err(TableError::NoLayer(pin.layer.clone(), names.join(", ")));
        };
        let layer = &table.layers[i];
        let fits = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        for (flag, c) in allowed[i].iter_mut().zip(&layer.choices) {
            *flag &= fits(&pin.weight, &c.weight) && fits(&pin.activation, &c.activation);
        }
        if !allowed[i].contains(&true) {
            return Err(no_format(layer, pin));
        }
    }
    Ok(allowed)
}

fn no_format(layer: &SensitiveLayer, pin: &Pin) -> TableError {
    let wanted = [&pin.weight, &pin.activation];
    let known = layer
        .choices
        .iter()
        .map(|c| format!("{}×{}", c.weight, c.activation));
    TableError::NoFormat {
        layer: layer.name.clone(),
        format: wanted
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join("×"),
        known: known.collect::<Vec<_>>().join(", "),
    }
}

/// Groups of tied layers, in the order of their first layers.
fn tied(table: &Sensitivity) -> Result<Vec<Vec<usize>>, TableError> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut seen: BTreeMap<&Tie, usize> = BTreeMap::new();
    for (i, layer) in table.layers.iter().enumerate() {
        let Some(tie) = &layer.tie else {
            groups.push(vec![i]);
            continue;
        };
        let at = *seen.entry(tie).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        } else if table.layers[groups[at][0]].choices.len() != layer.choices.len() {
            let first = table.layers[groups[at][0]].name.clone();
            return Err(TableError::Tied(first, layer.name.clone()));
        }
        groups[at].push(i);
    }
    Ok(groups)
}

fn group(
    table: &Sensitivity,
    rows: &[Row],
    allowed: &[Vec<bool>],
    layers: Vec<usize>,
) -> Result<Group, TableError> {
    let count = table.layers[layers[0]].choices.len();
    let left = (0..count).filter(|&c| layers.iter().all(|&l| allowed[l][c]));
    let sum =
        |f: &dyn Fn(&SensitiveLayer) -> f64| layers.iter().map(|&l| f(&table.layers[l])).sum();
    let cost = |c: usize, row: &Row| sum(&|l| row.cost(table, l, c));
    let options: Vec<Choice> = left
        .map(|c| Choice {
            index: c,
            loss: sum(&|l| l.choices[c].loss),
            costs: rows.iter().map(|row| cost(c, row)).collect(),
        })
        .collect();
    if options.is_empty() {
        let names = layers
            .iter()
            .map(|&l| format!("'{}'", table.layers[l].name));
        let names: Vec<String> = names.collect();
        return Err(TableError::TiedPins(names.join(", ")));
    }
    Ok(Group { layers, options })
}

fn links(table: &Sensitivity, groups: &[Group]) -> Vec<Link> {
    let mut readers: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for (g, group) in groups.iter().enumerate() {
        for &l in &group.layers {
            if let Some(tensor) = &table.layers[l].reads {
                readers.entry(tensor).or_default().push((g, l));
            }
        }
    }
    let shared = readers.into_values().filter(|m| m.len() > 1);
    shared.map(|members| Link { members }).collect()
}

fn activations(table: &Sensitivity) -> Vec<Vec<usize>> {
    let mut names: Vec<&str> = Vec::new();
    let mut number = |name| {
        names.iter().position(|&n| n == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
    };
    let layers = table.layers.iter();
    layers
        .map(|l| {
            l.choices
                .iter()
                .map(|c| number(c.activation.as_str()))
                .collect()
        })
        .collect()
}
